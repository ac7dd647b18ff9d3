// The end of a product for AVX-512: unscale, add the bias, round once, store up to 16 columns of a row.
#pragma once

#include <immintrin.h>

#include "common/scalar.h"
#include "product/matmul.h"

namespace octoscale {
namespace {

// 16 values of any float dtype as float32; those beyond the mask are not read.
inline __m512 load_floats(const void* x, Float type, int64_t i, __mmask16 mask) {
  if (type == Float::f32) return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(x) + i);
  const __m256i half = _mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(x) + i);
  if (type == Float::f16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// Rounds to the nearest bfloat16, ties to even. Not vcvtneps2bf16, which makes zeros of subnormals.
inline __m256i to_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(-1)), 16));
}

inline void store_floats(void* out, Float type, int64_t i, __m512 x, __mmask16 mask) {
  if (type == Float::f32) return _mm512_mask_storeu_ps(static_cast<float*>(out) + i, mask, x);
  const __m256i half = type == Float::bf16 ? to_bf16(x) : _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
  _mm256_mask_storeu_epi16(static_cast<uint16_t*>(out) + i, mask, half);
}

// The outputs [r, c .. c + 15] that the mask names, from their sums.
inline void finish(const Output& out, Unscale unscale, int64_t r, int64_t c, __m512 sums, __mmask16 mask) {
  __m512 value = _mm512_mul_ps(_mm512_mul_ps(sums, _mm512_set1_ps(unscale.first)), _mm512_set1_ps(unscale.last));
  if (out.bias) value = _mm512_add_ps(value, load_floats(out.bias, out.bias_type, c, mask));
  store_floats(out.data, out.type, r * out.row_stride + c, value, mask);
}

// The lanes that hold the first `n` of 16 columns.
inline __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>(n >= 16 ? 0xFFFF : (1u << n) - 1); }

}  // namespace
}  // namespace octoscale
