// The end of a product for AVX-512: unscale, add the bias, round once, store up to 16 columns of a row.
#pragma once

#include <immintrin.h>

#include "common/lanes_avx512.h"
#include "product/elements.h"
#include "product/matmul.h"

namespace octoscale {
namespace {

// unscale.h, in lanes.
struct UnscaleLanes {
  __m512 first, last;
};

inline __m512 powers_of_two(__m512i exponents) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(exponents, _mm512_set1_epi32(127)), 23));
}

inline UnscaleLanes unscale_by(int scale_bias, __m512i scale_biases) {
  const __m512i wanted = _mm512_sub_epi32(_mm512_set1_epi32(-scale_bias), scale_biases);
  const __m512i last = _mm512_min_epi32(_mm512_max_epi32(wanted, _mm512_set1_epi32(-126)), _mm512_set1_epi32(126));
  return {powers_of_two(_mm512_sub_epi32(wanted, last)), powers_of_two(last)};
}

inline UnscaleLanes in_lanes(Unscale unscale) {
  return {_mm512_set1_ps(unscale.first), _mm512_set1_ps(unscale.last)};
}

inline __m512i load_biases(const int32_t* from, __mmask16 mask) { return _mm512_maskz_loadu_epi32(mask, from); }

// The outputs [r, c .. c + 15] that the mask names, from their sums: finish_one of elements.h, in lanes.
inline void finish(const Output& out, UnscaleLanes unscale, int64_t r, int64_t c, __m512 sums, __mmask16 mask) {
  __m512 value = _mm512_mul_ps(_mm512_mul_ps(sums, unscale.first), unscale.last);
  if (out.bias) value = _mm512_add_ps(value, load_floats(out.bias, out.bias_type, c, mask));
  store_floats(out.data, out.type, r * out.row_stride + c, value, mask);
}

// Sums times the factors of their columns, or times one factor.
inline __m512 with_factors(__m512 sums, const float* factors, float factor, int64_t c, __mmask16 mask) {
  if (factors) return _mm512_mul_ps(sums, _mm512_maskz_loadu_ps(mask, factors + c));
  return factor == 1.0f ? sums : _mm512_mul_ps(sums, _mm512_set1_ps(factor));
}

// The same with the scales of a product.
inline void finish(const Output& out, Scales scales, int64_t r, int64_t c, __m512 sums, __mmask16 mask) {
  const UnscaleLanes unscale = scales.rows ? unscale_by(scales.rows[r], load_biases(scales.cols + c, mask))
                                           : in_lanes(unscale_by(out.scale_bias));
  finish(out, unscale, r, c, with_factors(sums, scales.factors, scales.factor, c, mask), mask);
}

// The same of a part.
inline void finish(const Part& part, int64_t r, int64_t c, __m512 sums, __mmask16 mask) {
  const ManyScales& scales = part.scales;
  const int bias = part.out.scale_bias;
  const UnscaleLanes unscale = scales.biases ? unscale_by(bias, load_biases(scales.biases + c, mask))
                                             : in_lanes(unscale_by(bias));
  finish(part.out, unscale, r, c, with_factors(sums, scales.factors, scales.factor, c, mask), mask);
}

}  // namespace
}  // namespace octoscale
