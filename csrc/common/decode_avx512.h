// Decoding for AVX-512: 64 codes at a time, by two look-ups in tables of 128 bytes that stay in registers.
//
// The 16 bits of a bfloat16 or float16, sign apart, depend on 7 bits of a code: one table holds their high bytes, one
// their low bytes. A scale is part of the tables, so it costs nothing, and each entry was rounded once.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "common/lanes_avx512.h"
#include "common/scalar.h"

namespace octoscale {
namespace {

// The tables of one format, scale and 16-bit dtype, in registers. In fnuz formats the code of minus zero is NaN.
template <bool is_fnuz>
class DecodeTable16 {
 public:
  DecodeTable16(const Format& format, float scale, Float type) {
    alignas(64) uint8_t low[128], high[128];
    for (int code = 0; code < 128; ++code) {
      const float value = decode_one(static_cast<uint8_t>(code), format) * scale;
      const uint16_t bits = type == Float::bf16 ? float_to_bf16(value) : float_to_f16(value);
      low[code] = static_cast<uint8_t>(bits);
      high[code] = static_cast<uint8_t>(bits >> 8);
    }
    for (int half = 0; half < 2; ++half) {
      low_[half] = _mm512_load_si512(low + 64 * half);
      high_[half] = _mm512_load_si512(high + 64 * half);
    }
  }

  // The table of bfloat16 values times 2**-exponent.
  DecodeTable16 lowered_by(int exponent) const {
    DecodeTable16 result = *this;
    const __m512i by = _mm512_set1_epi16(static_cast<int16_t>(exponent << 7)), byte = _mm512_set1_epi16(0xFF);
    for (int half = 0; half < 2; ++half) {
      const __m512i first = lowered(_mm512_unpacklo_epi8(low_[half], high_[half]), by);
      const __m512i second = lowered(_mm512_unpackhi_epi8(low_[half], high_[half]), by);
      result.low_[half] = _mm512_packus_epi16(_mm512_and_si512(first, byte), _mm512_and_si512(second, byte));
      result.high_[half] = _mm512_packus_epi16(_mm512_srli_epi16(first, 8), _mm512_srli_epi16(second, 8));
    }
    return result;
  }

  // The 16-bit values of 64 codes. Within each run of 16 codes, 0..7 go to `first` and 8..15 to `second`: unpacking
  // works on 128 bits. decode_ordered keeps the order.
  void decode(__m512i codes, __m512i& first, __m512i& second) const {
    __m512i low = _mm512_permutex2var_epi8(low_[0], codes, low_[1]);
    __m512i high = _mm512_permutex2var_epi8(high_[0], codes, high_[1]);
    high = _mm512_ternarylogic_epi32(high, codes, _mm512_set1_epi8(-128), 0xF8);  // high | (codes & 0x80)
    if constexpr (is_fnuz) {  // 0xFFFF is NaN in both dtypes
      const __mmask64 nan = _mm512_cmpeq_epi8_mask(codes, _mm512_set1_epi8(-128));
      low = _mm512_mask_mov_epi8(low, nan, _mm512_set1_epi8(-1));
      high = _mm512_mask_mov_epi8(high, nan, _mm512_set1_epi8(-1));
    }
    first = _mm512_unpacklo_epi8(low, high);
    second = _mm512_unpackhi_epi8(low, high);
  }

  // The same, in order: codes 0..31 to `first`, 32..63 to `second`.
  void decode_ordered(__m512i codes, __m512i& first, __m512i& second) const {
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    decode(_mm512_permutexvar_epi64(order, codes), first, second);
  }

 private:
  __m512i low_[2], high_[2];
};

// Calls body(table), with the table of the format.
template <class Body>
inline void with_table(Fp8 format, float scale, Float type, Body&& body) {
  if (row(format).is_fnuz()) body(DecodeTable16<true>(row(format), scale, type));
  else body(DecodeTable16<false>(row(format), scale, type));
}

// 32 values as bfloat16 -> float32, scaled.
inline void widen_and_store(__m512i values, __m512 scale, float* out) {
  _mm512_storeu_ps(out, _mm512_mul_ps(widen_bf16(_mm512_castsi512_si256(values)), scale));
  _mm512_storeu_ps(out + 16, _mm512_mul_ps(widen_bf16(_mm512_extracti64x4_epi64(values, 1)), scale));
}

template <class Table>
void decode_run(const Table& table, const uint8_t* codes, int64_t n, float scale, char* out, bool wide) {
  const __m512 scales = _mm512_set1_ps(scale);
  const auto store_64 = [&](__m512i bytes, char* to) {
    __m512i first, second;
    table.decode_ordered(bytes, first, second);
    if (wide) {
      widen_and_store(first, scales, reinterpret_cast<float*>(to));
      widen_and_store(second, scales, reinterpret_cast<float*>(to) + 32);
    } else {
      _mm512_storeu_si512(to, first);
      _mm512_storeu_si512(to + 64, second);
    }
  };
  const int64_t size = wide ? 4 : 2;
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) store_64(_mm512_loadu_si512(codes + i), out + i * size);
  if (i < n) {
    alignas(64) char rest[256];
    store_64(load_codes(codes + i, n - i), rest);
    std::memcpy(out + i * size, rest, static_cast<size_t>((n - i) * size));
  }
}

}  // namespace
}  // namespace octoscale
