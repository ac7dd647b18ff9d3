// Attention of one new token for AVX-512 and AMX: the queries of heads that share keys and values, against all keys.
//
// Products with keys are vdpbf16ps; the weights stay float32, and the sums over values of 64 dimensions in registers.
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "common/lanes_avx512.h"
#include "decoder/softmax_avx512.h"

namespace octoscale {
namespace {

// The sums of the lanes of four vectors.
inline __m128 reduce_four(const __m512 (&x)[4]) {
  const auto halve = [](__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  };
  const __m512d low = _mm512_castps_pd(halve(x[0], x[1])), high = _mm512_castps_pd(halve(x[2], x[3]));
  const __m512 sums = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
                                    _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps(sums, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// scores[t] = query . keys[t], for four keys at a time; num_steps of 32 dimensions each, of which the last may be half.
template <int num_steps>
void score_keys(const uint16_t* query, const uint16_t* keys, int64_t head_dim, int64_t length, float* scores) {
  const __mmask32 last = first_lanes<__mmask32>(head_dim - 32 * (num_steps - 1));
  const auto load = [&](const uint16_t* from, int i) {
    return _mm512_maskz_loadu_epi16(i + 1 < num_steps ? ~0u : last, from + 32 * i);
  };
  __m512i q[num_steps];
  for (int i = 0; i < num_steps; ++i) q[i] = load(query, i);
  for (int64_t t = 0; t < length; t += 4) {
    __m512 sums[4];
    for (int64_t j = 0; j < 4; ++j) {
      const uint16_t* key = keys + std::min(t + j, length - 1) * head_dim;
      sums[j] = _mm512_setzero_ps();
      for (int i = 0; i < num_steps; ++i) sums[j] = dot(sums[j], q[i], load(key, i));
    }
    const __mmask8 mask = first_lanes<__mmask8>(std::min<int64_t>(4, length - t));
    _mm_mask_storeu_ps(scores + t, mask, reduce_four(sums));
  }
}

void score_keys(const uint16_t* query, const uint16_t* keys, int64_t head_dim, int64_t length, float* scores) {
  switch ((head_dim + 31) / 32) {
    case 1: return score_keys<1>(query, keys, head_dim, length, scores);
    case 2: return score_keys<2>(query, keys, head_dim, length, scores);
    case 3: return score_keys<3>(query, keys, head_dim, length, scores);
    case 4: return score_keys<4>(query, keys, head_dim, length, scores);
    case 5: return score_keys<5>(query, keys, head_dim, length, scores);
    case 6: return score_keys<6>(query, keys, head_dim, length, scores);
    case 7: return score_keys<7>(query, keys, head_dim, length, scores);
    default: return score_keys<8>(query, keys, head_dim, length, scores);
  }
}

// Scores to e**((score - largest) * scale), in place; returns one over their sum.
inline float soften(float* scores, int64_t length, float scale) {
  const auto store = [&](int64_t t, __m512 weights) {
    _mm512_mask_storeu_ps(scores + t, first_lanes<__mmask16>(length - t), weights);
  };
  return 1.0f / weigh(length, length, scale, [&](int64_t t) { return scores + t; }, store);
}

// out = factor * sum of weights[t] * values[t], of up to 64 dimensions that begin at `values`, a multiple of 16.
inline void sum_values(const float* weights, const uint16_t* values, int64_t head_dim, int64_t num_dims, int64_t length,
                       float factor, uint16_t* out) {
  constexpr int64_t most = 4;
  __m512 sums[most] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  const auto add = [&](int64_t t, int64_t num) {
    const __m512 weight = _mm512_set1_ps(weights[t]);
    for (int64_t i = 0; i < num; ++i)
      sums[i] = _mm512_fmadd_ps(weight, load_floats(values + t * head_dim, Float::bf16, 16 * i, 0xFFFF), sums[i]);
  };
  if (num_dims >= 16 * most) {
    for (int64_t t = 0; t < length; ++t) add(t, most);
  } else {
    for (int64_t t = 0; t < length; ++t) add(t, num_dims / 16);
  }
  for (int64_t i = 0; i < std::min(most, num_dims / 16); ++i)
    store_floats(out, Float::bf16, 16 * i, _mm512_mul_ps(sums[i], _mm512_set1_ps(factor)), 0xFFFF);
}

// See DecoderKernels::attend.
void attend(const uint16_t* queries, const uint16_t* keys, const uint16_t* values, int64_t num_queries,
            int64_t head_dim, int64_t length, float scale, float* scores, uint16_t* out) {
  for (int64_t h = 0; h < num_queries; ++h) {
    score_keys(queries + h * head_dim, keys, head_dim, length, scores);
    const float factor = soften(scores, length, scale);
    for (int64_t i = 0; i < head_dim; i += 64)
      sum_values(scores, values + i, head_dim, head_dim - i, length, factor, out + h * head_dim + i);
  }
}

}  // namespace
}  // namespace octoscale
