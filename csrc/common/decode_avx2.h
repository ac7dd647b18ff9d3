// Decoding for AVX2: 8 codes at a time to float32, by integer arithmetic on exponent fields.
//
// Shifted left, the 7 bits of a code are a float32 whose exponent is off by the difference of the biases. Subnormals
// lack their implicit bit: they are read as if they had one, in the binade above, and it is subtracted.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "common/constants.h"
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

// Rounds to the nearest bfloat16, ties to even; NaN stays NaN.
[[maybe_unused]] inline __m128i to_bf16(__m256 x) {
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
    const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
    store_vector<T>(to, _mm256_mul_ps(decode_vector<F>(wide), scales));
  };
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) store_8(codes + i, out + i * size);
  if (i < n) {
    uint8_t rest[8] = {};
    char rest_out[32];
    std::memcpy(rest, codes + i, static_cast<size_t>(n - i));
    store_8(rest, rest_out);
    std::memcpy(out + i * size, rest_out, static_cast<size_t>((n - i) * size));
  }
}

[[maybe_unused]] void decode_any(const uint8_t* codes, int64_t n, Fp8 format, int scale_bias, void* out, Float type) {
  with_float(type, [&](auto T) {
    with_format(format, [&](auto F) {
      decode_run<F.value, T.value>(codes, n, power_of_two(-scale_bias), static_cast<char*>(out));
    });
  });
}

}  // namespace
}  // namespace octoscale
