// Softmax's weights for AVX-512 and AMX: e**((score - largest) * scale), 16 at a time.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "common/lanes_avx512.h"

namespace octoscale {
namespace {

// 2**x for x <= 0, to about 1e-7, relative: 2**n * 2**f with |f| <= 1/2, a Taylor polynomial. NaN stays NaN.
inline __m512 exp2_lanes(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-200.0f), x);  // far below, zero: so is 2**-infinity
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(1.54035304e-4f);  // ln(2)**6 / 6!
  for (const float coefficient : {1.33335581e-3f, 9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.0f})
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(coefficient));
  return _mm512_scalef_ps(p, n);
}

// The weights of the scores that the mask names, zeros for the others.
inline __m512 weigh_lanes(const float* scores, __mmask16 mask, __m512 largest, __m512 scale_log2_e) {
  const __m512 below = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, scores), largest);
  return _mm512_maskz_mov_ps(mask, exp2_lanes(_mm512_mul_ps(below, scale_log2_e)));
}

// The same, written as bfloat16 too.
[[maybe_unused]] inline __m512 weigh_lanes(const float* scores, __mmask16 mask, __m512 largest, __m512 scale_log2_e,
                                           uint16_t* rounded) {
  const __m512 weights = weigh_lanes(scores, mask, largest, scale_log2_e);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(rounded), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(weights)));
  return weights;
}

// The largest of up to 16 more scores in each lane.
inline __m512 larger_lanes(__m512 largest, const float* scores, __mmask16 mask) {
  return _mm512_mask_max_ps(largest, mask, _mm512_maskz_loadu_ps(mask, scores), largest);
}

constexpr float log2_e = 1.44269504f;

}  // namespace
}  // namespace octoscale
