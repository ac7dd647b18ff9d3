// The casts for AVX-512 (F, BW, VL, DQ, VBMI).

#include <immintrin.h>

#include "cast/simd_groups.h"
#include "common/decode_avx512.h"
#include "common/lanes_avx512.h"

namespace octoscale {
namespace {

struct Avx512 {
  using Int = __m512i;    // 16 lanes of 32 bits
  using Real = __m512;
  using Bytes = __m512i;  // 64 lanes of 8 bits
  static constexpr int64_t lanes = 16;
  template <Float T>
  static constexpr int64_t num_raw = T == Float::f32 ? 16 : 32;

  static Int zero() { return _mm512_setzero_si512(); }
  static Int set(int x) { return _mm512_set1_epi32(x); }
  static Int set(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
  static Real set(float x) { return _mm512_set1_ps(x); }
  static Bytes set_bytes(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
  static Real real(Int x) { return _mm512_castsi512_ps(x); }
  static Int bits(Real x) { return _mm512_castps_si512(x); }

  static Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int sub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static Int max(Int a, Int b) { return _mm512_max_epu32(a, b); }
  static Int min(Int a, Int b) { return _mm512_min_epu32(a, b); }
  static uint32_t max(Int a) { return _mm512_reduce_max_epu32(a); }
  static Int bit_and(Int a, Int b) { return _mm512_and_si512(a, b); }
  static Int magnitude(Int x) { return _mm512_and_si512(x, set(magnitude_bits)); }
  template <int count>
  static Int shift_right(Int x) { return _mm512_srli_epi32(x, count); }
  static Int parity(Int a, Int b, Int c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
  static Int majority(Int a, Int b, Int c) { return _mm512_ternarylogic_epi32(a, b, c, 0xE8); }
  static int count_bit(Int x, int bit) { return __builtin_popcount(_mm512_test_epi32_mask(x, set(1 << bit))); }
  static Real add(Real a, Real b) { return _mm512_add_ps(a, b); }
  static Real mul(Real a, Real b) { return _mm512_mul_ps(a, b); }
  static void prefetch(const char* x) { _mm_prefetch(x + 4096, _MM_HINT_T0); }

  // 16 values as the bits of float32.
  template <Float T>
  static Int load(const char* x) {
    if constexpr (T == Float::f32) {
      return _mm512_loadu_si512(x);
    } else {
      const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
      return bits(T == Float::bf16 ? widen_bf16(half) : _mm512_cvtph_ps(half));
    }
  }

  // The largest magnitude of `so_far` and a register of values in their own width; their bits order like the values.
  template <Float T>
  static Int max_raw(Int so_far, const char* x) {
    return max_raw<T>(so_far, bit_and(_mm512_loadu_si512(x), set(T == Float::f32 ? magnitude_bits : 0x7FFF7FFF)));
  }
  template <Float T>
  static Int max_raw(Int a, Int b) {
    return T == Float::f32 ? _mm512_max_epu32(a, b) : _mm512_max_epu16(a, b);
  }
  // The largest of both registers as the bits of a float32.
  template <Float T>
  static uint32_t widen_max(Int a, Int b) {
    const Int both = max_raw<T>(a, b);
    if constexpr (T == Float::f32) return max(both);
    const uint16_t largest = static_cast<uint16_t>(max(max(shift_right<16>(both), bit_and(both, set(0xFFFF)))));
    return to_bits(T == Float::bf16 ? bf16_to_float(largest) : f16_to_float(largest));
  }

  // max(furthest, column) in the lanes whose exponent field is not 0; the others are counted.
  static Int max_where_normal(Int furthest, Int column, Int magnitude, int64_t* zeros) {
    const __mmask16 normal = _mm512_test_epi32_mask(magnitude, set(infinity_bits));
    *zeros += 16 - __builtin_popcount(normal);
    return _mm512_mask_max_epu32(furthest, normal, furthest, column);
  }
  // 1 << column, but 0 where column > 31 or the exponent field is 0.
  static Int shift_one_left(Int column, Int magnitude) {
    const __mmask16 normal = _mm512_test_epi32_mask(magnitude, set(infinity_bits));
    return _mm512_maskz_sllv_epi32(normal, set(1), column);
  }

  // The lowest byte of each lane of 4 vectors, in order.
  static Bytes pack(const Int (&x)[4]) {
    const Int even = _mm512_setr_epi32(0x0C080400, 0x1C181410, 0x2C282420, 0x3C383430, 0x4C484440, 0x5C585450,
                                       0x6C686460, 0x7C787470, 0, 0, 0, 0, 0, 0, 0, 0);
    const Bytes low = _mm512_permutex2var_epi8(x[0], even, x[1]), high = _mm512_permutex2var_epi8(x[2], even, x[3]);
    return _mm512_inserti64x4(low, _mm512_castsi512_si256(high), 1);
  }
  static Bytes sub_bytes(Bytes a, Bytes b) { return _mm512_sub_epi8(a, b); }

  using Mask = uint64_t;  // one bit for each of 64 values
  static int count_both(Mask a, Mask b) { return __builtin_popcountll(a & b); }
  static int count_without(Mask a, Mask b) { return __builtin_popcountll(a & ~b); }
  static Mask zero_mask(Bytes x) { return _mm512_testn_epi8_mask(x, x); }
  static Bytes or_signs(Bytes code, const Int (&x)[4]) {
    const Int odd = _mm512_setr_epi32(0x0F0B0703, 0x1F1B1713, 0x2F2B2723, 0x3F3B3733, 0x4F4B4743, 0x5F5B5753,
                                      0x6F6B6763, 0x7F7B7773, 0, 0, 0, 0, 0, 0, 0, 0);
    const Bytes low = _mm512_permutex2var_epi8(x[0], odd, x[1]), high = _mm512_permutex2var_epi8(x[2], odd, x[3]);
    const Bytes top = _mm512_inserti64x4(low, _mm512_castsi512_si256(high), 1);
    return _mm512_ternarylogic_epi32(code, top, set_bytes(0x80), 0xF8);  // code | (top & 0x80)
  }
  static Bytes clear_where(Bytes x, Mask mask) { return _mm512_maskz_mov_epi8(~mask, x); }
  static Bytes blend(Bytes a, Bytes b, Mask mask) { return _mm512_mask_mov_epi8(a, mask, b); }
  static void store(uint8_t* out, Bytes x) { _mm512_storeu_si512(out, x); }

  template <class Test>
  static Mask mask(const Int (&x)[4], Test test) {
    const __mmask32 low = _mm512_kunpackw(test(x[1]), test(x[0])), high = _mm512_kunpackw(test(x[3]), test(x[2]));
    return _mm512_kunpackd(high, low);
  }
  static Mask nonzero_mask(const Int (&x)[4]) {
    return mask(x, [](Int v) { return _mm512_test_epi32_mask(v, set(magnitude_bits)); });
  }
  static Mask nonfinite_mask(const Int (&x)[4]) {
    return mask(x, [](Int v) { return _mm512_cmpge_epu32_mask(magnitude(v), set(infinity_bits)); });
  }
  static Mask above_mask(const Int (&x)[4], Real scale, uint32_t limit) {
    return mask(x, [=](Int v) { return _mm512_cmpgt_epu32_mask(magnitude(bits(mul(real(v), scale))), set(limit)); });
  }
};

void decode_any(const uint8_t* codes, int64_t n, Fp8 format, int scale_bias, void* out, Float type) {
  const float scale = power_of_two(-scale_bias);
  const bool wide = type == Float::f32;  // by way of bfloat16, which holds every value; the scale comes after
  with_table(format, wide ? 1.0f : scale, wide ? Float::bf16 : type, [&](const auto& table) {
    decode_run(table, codes, n, scale, static_cast<char*>(out), wide);
  });
}

}  // namespace

const CastKernels cast_avx512 = {observe_any<Avx512>, encode_any<Avx512>, decode_any, observe_groups_any<Avx512>,
                                  encode_groups_any<Avx512>};

}  // namespace octoscale
