// Decoding for AVX2: 8 codes at a time to float32, by integer arithmetic on exponent fields.
//
// Shifted left, the 7 bits of a code are a float32 whose exponent is off by the difference of the biases. Subnormals
// lack their implicit bit: they are read as if they had one, in the binade above, and it is subtracted.
#pragma once

#include <immintrin.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "common/scalar.h"

namespace octoscale {
namespace {

template <Fp8 F>
inline __m256 decode_vector(__m256i codes) {
  constexpr Format format = row(F);
  constexpr int shift = 23 - format.mantissa_bits, rebias = (127 - format.bias) << 23;
  const __m256i magnitude = _mm256_and_si256(codes, _mm256_set1_epi32(0x7F));
  const __m256i normal = _mm256_add_epi32(_mm256_slli_epi32(magnitude, shift), _mm256_set1_epi32(rebias));
  const __m256 smallest_normal = _mm256_castsi256_ps(_mm256_set1_epi32(rebias + (1 << 23)));
  const __m256 raised = _mm256_castsi256_ps(_mm256_add_epi32(normal, _mm256_set1_epi32(1 << 23)));
  const __m256i is_subnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(1 << format.mantissa_bits), magnitude);
  __m256 value = _mm256_blendv_ps(_mm256_castsi256_ps(normal), _mm256_sub_ps(raised, smallest_normal),
                                  _mm256_castsi256_ps(is_subnormal));
  if constexpr (format.special == Special::ieee) {  // the highest field: infinity and NaN keep their mantissa
    const __m256i special = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(format.max_code()));
    const __m256i bits = _mm256_or_si256(_mm256_castps_si256(value), _mm256_set1_epi32(infinity_bits));
    value = _mm256_blendv_ps(value, _mm256_castsi256_ps(bits), _mm256_castsi256_ps(special));
  } else {
    const __m256i code = format.is_fnuz() ? codes : magnitude;
    const __m256i nan = _mm256_cmpeq_epi32(code, _mm256_set1_epi32(format.nan_code()));
    value = _mm256_or_ps(value, _mm256_castsi256_ps(nan));
  }
  const __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(codes, 7), 31);
  return _mm256_or_ps(value, _mm256_castsi256_ps(sign));
}

// 8 codes, one in each lane.
inline __m256i load_codes(const uint8_t* from) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
}

// The first n of 8 codes, with zeros behind them.
inline std::array<uint8_t, 8> padded_codes(const uint8_t* from, int64_t n) {
  std::array<uint8_t, 8> codes = {};
  std::memcpy(codes.data(), from, static_cast<size_t>(n));
  return codes;
}

}  // namespace
}  // namespace octoscale
