// Softmax for AVX-512 and AMX: the weights e**((score - largest) * scale), 16 at a time, and the means that they make.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "common/lanes_avx512.h"
#include "common/scalar.h"

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

constexpr float log2_e = 1.44269504f;

// The weights of the first n scores, 0 for those up to `end`, 16 at a time: scores_at(t) is where those from t on are,
// store(t, weights) keeps them. The largest is among the first n. Returns the sum of all weights.
template <class ScoresAt, class Store>
inline float weigh(int64_t n, int64_t end, float scale, ScoresAt&& scores_at, Store&& store) {
  const auto lanes_at = [&](int64_t t) { return first_lanes<__mmask16>(std::max<int64_t>(0, n - t)); };
  const auto load = [&](int64_t t) { return _mm512_maskz_loadu_ps(lanes_at(t), scores_at(t)); };
  __m512 maxima = _mm512_set1_ps(-INFINITY), sums = _mm512_setzero_ps();
  for (int64_t t = 0; t < n; t += 16) maxima = _mm512_mask_max_ps(maxima, lanes_at(t), load(t), maxima);
  const __m512 largest = _mm512_set1_ps(_mm512_reduce_max_ps(maxima)), factor = _mm512_set1_ps(scale * log2_e);
  for (int64_t t = 0; t < end; t += 16) {
    const __m512 weights = exp2_lanes(_mm512_mul_ps(_mm512_sub_ps(load(t), largest), factor));
    const __m512 wanted = _mm512_maskz_mov_ps(lanes_at(t), weights);
    store(t, wanted);
    sums = _mm512_add_ps(sums, wanted);
  }
  return _mm512_reduce_add_ps(sums);
}

// 16 weights as bfloat16. Those that are subnormal become zeros.
[[maybe_unused]] inline void store_weights(uint16_t* out, __m512 weights) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(weights)));
}

// Sums of n weighted values over the sum of the weights, as bfloat16.
[[maybe_unused]] inline void store_means(const float* sums, float total, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = float_to_bf16(sums[i] / total);
}

}  // namespace
}  // namespace octoscale
