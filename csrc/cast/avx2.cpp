// The casts for AVX2 with FMA and F16C.

#include <immintrin.h>

#include "cast/simd_groups.h"
#include "common/decode_avx2.h"

namespace octoscale {
namespace {

struct Avx2 {
  using Int = __m256i;    // 8 lanes of 32 bits
  using Real = __m256;
  using Bytes = __m256i;  // 32 lanes of 8 bits
  static constexpr int64_t lanes = 8;
  template <Float T>
  static constexpr int64_t num_raw = T == Float::f32 ? 8 : 16;

  static Int zero() { return _mm256_setzero_si256(); }
  static Int set(int x) { return _mm256_set1_epi32(x); }
  static Int set(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
  static Real set(float x) { return _mm256_set1_ps(x); }
  static Bytes set_bytes(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
  static Real real(Int x) { return _mm256_castsi256_ps(x); }
  static Int bits(Real x) { return _mm256_castps_si256(x); }

  static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int sub(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  static Int max(Int a, Int b) { return _mm256_max_epu32(a, b); }
  static Int min(Int a, Int b) { return _mm256_min_epu32(a, b); }
  static uint32_t max(Int a) {
    const __m128i four = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    const __m128i two = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4E));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32(two, 0xB1))));
  }
  static Int bit_and(Int a, Int b) { return _mm256_and_si256(a, b); }
  static Int magnitude(Int x) { return bit_and(x, set(magnitude_bits)); }
  template <int count>
  static Int shift_right(Int x) { return _mm256_srli_epi32(x, count); }
  static Int parity(Int a, Int b, Int c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
  static Int majority(Int a, Int b, Int c) {
    return _mm256_or_si256(bit_and(a, b), bit_and(c, _mm256_xor_si256(a, b)));
  }
  static int count_bit(Int x, int bit) {
    return __builtin_popcount(_mm256_movemask_ps(real(_mm256_sll_epi32(x, _mm_cvtsi32_si128(31 - bit)))));
  }
  static Real add(Real a, Real b) { return _mm256_add_ps(a, b); }
  static Real mul(Real a, Real b) { return _mm256_mul_ps(a, b); }
  static void prefetch(const char* x) { _mm_prefetch(x + 4096, _MM_HINT_T0); }

  static Int load_raw(const char* x) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)); }
  // 8 values as the bits of float32.
  template <Float T>
  static Int load(const char* x) {
    if constexpr (T == Float::f32) {
      return load_raw(x);
    } else {
      const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
      if constexpr (T == Float::bf16) return _mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
      else return bits(_mm256_cvtph_ps(half));
    }
  }

  // The largest magnitude of `so_far` and a register of values in their own width; their bits order like the values.
  template <Float T>
  static Int max_raw(Int so_far, const char* x) {
    return max_raw<T>(so_far, bit_and(load_raw(x), set(T == Float::f32 ? magnitude_bits : 0x7FFF7FFF)));
  }
  template <Float T>
  static Int max_raw(Int a, Int b) {
    return T == Float::f32 ? _mm256_max_epu32(a, b) : _mm256_max_epu16(a, b);
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
    const Int zero_field = is_zero(shift_right<23>(magnitude));
    *zeros += __builtin_popcount(_mm256_movemask_ps(real(zero_field)));
    return max(furthest, _mm256_andnot_si256(zero_field, column));
  }
  // 1 << column, but 0 where column > 31 or the exponent field is 0.
  static Int shift_one_left(Int column, Int magnitude) {
    return _mm256_andnot_si256(is_zero(shift_right<23>(magnitude)), _mm256_sllv_epi32(set(1), column));
  }
  static Int is_zero(Int x) { return _mm256_cmpeq_epi32(x, zero()); }

  // Vectors whose lanes are in 0..255 -> their bytes, in order.
  static Bytes pack_small(Int a, Int b, Int c, Int d) {
    const Bytes packed = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
    return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
  // The lowest byte of each lane of 4 vectors, in order.
  static Bytes pack(const Int (&x)[4]) {
    const Int byte = set(0xFF);
    return pack_small(bit_and(x[0], byte), bit_and(x[1], byte), bit_and(x[2], byte), bit_and(x[3], byte));
  }
  static Bytes sub_bytes(Bytes a, Bytes b) { return _mm256_sub_epi8(a, b); }
  static Bytes or_signs(Bytes code, const Int (&x)[4]) {
    const Bytes top =
        pack_small(shift_right<24>(x[0]), shift_right<24>(x[1]), shift_right<24>(x[2]), shift_right<24>(x[3]));
    return _mm256_or_si256(code, bit_and(top, set_bytes(0x80)));
  }

  using Mask = __m256i;  // one byte, 0 or 0xFF, for each of 32 values
  static int count_both(Mask a, Mask b) { return count(bit_and(a, b)); }
  static int count_without(Mask a, Mask b) { return count(_mm256_andnot_si256(b, a)); }
  static int count(Mask x) { return __builtin_popcount(static_cast<unsigned>(_mm256_movemask_epi8(x))); }
  static Mask zero_mask(Bytes x) { return _mm256_cmpeq_epi8(x, zero()); }
  static Bytes clear_where(Bytes x, Mask mask) { return _mm256_andnot_si256(mask, x); }
  static Bytes blend(Bytes a, Bytes b, Mask mask) { return _mm256_blendv_epi8(a, b, mask); }
  static void store(uint8_t* out, Bytes x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), x); }

  template <class Test>
  static Mask mask(const Int (&x)[4], Test test) {
    const Int packed = _mm256_packs_epi16(_mm256_packs_epi32(test(x[0]), test(x[1])),
                                          _mm256_packs_epi32(test(x[2]), test(x[3])));
    return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
  static Mask nonzero_mask(const Int (&x)[4]) {
    return mask(x, [](Int v) { return _mm256_cmpgt_epi32(magnitude(v), zero()); });
  }
  static Mask nonfinite_mask(const Int (&x)[4]) {
    return mask(x, [](Int v) { return _mm256_cmpgt_epi32(magnitude(v), set(infinity_bits - 1)); });
  }
  static Mask above_mask(const Int (&x)[4], Real scale, uint32_t limit) {
    return mask(x, [=](Int v) {
      return _mm256_cmpgt_epi32(magnitude(bits(mul(real(v), scale))), set(static_cast<int>(limit)));
    });
  }
};

// Rounds to the nearest bfloat16, ties to even; NaN stays NaN.
inline __m128i to_bf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i top = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, _mm256_set1_epi32(-1), nan), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(top, top), 0xD8);
  return _mm256_castsi256_si128(packed);
}

template <Float T>
inline void store_vector(char* out, __m256 x) {
  if constexpr (T == Float::f32) _mm256_storeu_ps(reinterpret_cast<float*>(out), x);
  if constexpr (T == Float::bf16) _mm_storeu_si128(reinterpret_cast<__m128i*>(out), to_bf16(x));
  if constexpr (T == Float::f16)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

template <Fp8 F, Float T>
void decode_run(const uint8_t* codes, int64_t n, float scale, char* out) {
  constexpr int64_t size = size_of(T);
  const __m256 scales = _mm256_set1_ps(scale);
  const auto store_8 = [&](const uint8_t* from, char* to) {
    store_vector<T>(to, _mm256_mul_ps(decode_vector<F>(load_codes(from)), scales));
  };
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) store_8(codes + i, out + i * size);
  if (i < n) {
    char rest_out[32];
    store_8(padded_codes(codes + i, n - i).data(), rest_out);
    std::memcpy(out + i * size, rest_out, static_cast<size_t>((n - i) * size));
  }
}

void decode_any(const uint8_t* codes, int64_t n, Fp8 format, int scale_bias, void* out, Float type) {
  with_float(type, [&](auto T) {
    with_format(format, [&](auto F) {
      decode_run<F.value, T.value>(codes, n, power_of_two(-scale_bias), static_cast<char*>(out));
    });
  });
}

}  // namespace

const CastKernels cast_avx2 = {observe_any<Avx2>, encode_any<Avx2>, decode_any, observe_groups_any<Avx2>,
                                  encode_groups_any<Avx2>};

}  // namespace octoscale
