// The loops between the products of a decoder layer, in plain C++ that compilers turn into vectors of any width.
//
// Sums run in 16 lanes whatever the instruction set, so each gives the same bits. Each .cpp that includes this is
// compiled for its own instruction set.
#pragma once

#include <algorithm>
#include <cmath>

#include "common/scalar.h"
#include "decoder/kernels.h"

namespace octoscale {
namespace {

constexpr int lanes = 16;

inline float rounded(float x) { return bf16_to_float(float_to_bf16(x)); }

inline float sum_of(const float (&x)[lanes]) {
  float s[lanes];
  std::copy_n(x, lanes, s);
  for (int half = lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) s[i] += s[i + half];
  return s[0];
}

inline float largest_of(const float* x, int64_t n) {
  float maxima[lanes];
  std::fill_n(maxima, lanes, x[0]);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int j = 0; j < lanes; ++j) maxima[j] = x[i + j] > maxima[j] ? x[i + j] : maxima[j];
  float largest = *std::max_element(maxima, maxima + lanes);
  for (; i < n; ++i) largest = std::max(largest, x[i]);
  return largest;
}

// e**x to about 1e-7, relative: 2**n * e**r with |r| <= ln(2) / 2.
inline float exponential(float x) {
  constexpr float log2_e = 1.44269504f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f, whole = 12582912.0f;
  const float inside = x > 88.0f ? 88.0f : (x < -87.0f ? -87.0f : x);
  const float shifted = inside * log2_e + whole;
  const float n = shifted - whole;
  const float r = (inside - n * ln2_high) - n * ln2_low;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float value = (p * r * r + r + 1.0f) * from_bits((to_bits(shifted) + 127u) << 23);
  return x < -87.0f ? 0.0f : value;
}

void norm_loop(const uint16_t* x, Norm norm, int64_t n, uint16_t* out) {
  float squares[lanes] = {};
  for (int64_t i = 0; i < n; i += lanes)
    for (int j = 0; j < lanes; ++j) squares[j] += bf16_to_float(x[i + j]) * bf16_to_float(x[i + j]);
  const float factor = 1.0f / std::sqrt(sum_of(squares) / static_cast<float>(n) + norm.epsilon);
  for (int64_t i = 0; i < n; ++i)
    out[i] = float_to_bf16(bf16_to_float(norm.weight[i]) * rounded(bf16_to_float(x[i]) * factor));
}

void rotate_loop(uint16_t* head, const uint16_t* cosines, const uint16_t* sines, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float a = bf16_to_float(head[i]), b = bf16_to_float(head[i + half]);
    const float low_cosine = bf16_to_float(cosines[i]), low_sine = bf16_to_float(sines[i]);
    const float high_cosine = bf16_to_float(cosines[i + half]), high_sine = bf16_to_float(sines[i + half]);
    head[i] = float_to_bf16(rounded(a * low_cosine) - rounded(b * low_sine));
    head[i + half] = float_to_bf16(rounded(b * high_cosine) + rounded(a * high_sine));
  }
}

float dot_loop(const uint16_t* a, const uint16_t* b, int64_t n) {
  float sums[lanes] = {};
  for (int64_t i = 0; i < n; i += lanes)
    for (int j = 0; j < lanes; ++j) sums[j] += bf16_to_float(a[i + j]) * bf16_to_float(b[i + j]);
  return sum_of(sums);
}

// Scores to weights that sum to 1.
void softmax_loop(float* scores, int64_t length) {
  const float largest = largest_of(scores, length);
  for (int64_t t = 0; t < length; ++t) scores[t] = exponential(scores[t] - largest);
  float sums[lanes] = {};
  for (int64_t t = 0; t < length; ++t) sums[t % lanes] += scores[t];
  const float sum = sum_of(sums);
  for (int64_t t = 0; t < length; ++t) scores[t] /= sum;
}

constexpr int64_t most_head_dim = 256;

[[maybe_unused]] void attend_loop(const uint16_t* queries, const uint16_t* keys, const uint16_t* values,
                                  int64_t num_queries, int64_t head_dim, int64_t length, float scale, float* scores,
                                  uint16_t* out) {
  for (int64_t t = 0; t < length; ++t)
    for (int64_t h = 0; h < num_queries; ++h)
      scores[h * length + t] = dot_loop(queries + h * head_dim, keys + t * head_dim, head_dim) * scale;
  for (int64_t h = 0; h < num_queries; ++h) {
    softmax_loop(scores + h * length, length);
    float sums[most_head_dim] = {};
    for (int64_t t = 0; t < length; ++t) {
      const float weight = scores[h * length + t];
      for (int64_t i = 0; i < head_dim; ++i) sums[i] += weight * bf16_to_float(values[t * head_dim + i]);
    }
    for (int64_t i = 0; i < head_dim; ++i) out[h * head_dim + i] = float_to_bf16(sums[i]);
  }
}

void gated_loop(const uint16_t* gate, const uint16_t* up, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const float x = bf16_to_float(gate[i]);
    out[i] = float_to_bf16(rounded(x / (1.0f + exponential(-x))) * bf16_to_float(up[i]));
  }
}

void add_loop(uint16_t* x, const uint16_t* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = float_to_bf16(bf16_to_float(x[i]) + bf16_to_float(y[i]));
}

}  // namespace
}  // namespace octoscale
