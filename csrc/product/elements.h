// One element of an operand, and of the output: for what is not done in vectors.
#pragma once

#include "common/constants.h"
#include "common/scalar.h"
#include "product/matmul.h"

namespace octoscale {
namespace {

inline float element(const Matrix& m, int64_t r, int64_t c) {
  const int64_t i = r * m.row_stride + c * m.col_stride;
  if (m.is_bf16) return load<Float::bf16>(m.data, i);
  const float value = decode_one(static_cast<const uint8_t*>(m.data)[i], row(m.format));
  return m.inner.exponents ? value * power_of_two(-m.inner.at(r, c)) : value;
}

inline float load_any(const void* x, Float type, int64_t i) {
  float value = 0;
  with_float(type, [&](auto T) { value = load<T.value>(x, i); });
  return value;
}

// The end of a product: unscale, add the bias, round once, store. finish_avx512.h has it for 16 columns.
inline void finish_one(const Output& out, Unscale unscale, int64_t r, int64_t c, float sum, float factor = 1.0f) {
  float value = sum * unscale.first * unscale.last * factor;
  if (out.bias) value += load_any(out.bias, out.bias_type, c);
  with_float(out.type, [&](auto T) { store<T.value>(out.data, r * out.row_stride + c, value); });
}

// What run i of column c is multiplied with.
inline float run_scale(const ManyScales& scales, int64_t c, int64_t i) {
  return scales.runs ? scales.runs[c / run_length * scales.stride + i] : 1.0f;
}

// Some rows of a column of a part, from their sums.
inline void finish_column(const Part& part, int64_t r, int64_t n, int64_t c, const float* sums) {
  const ManyScales& scales = part.scales;
  const Unscale unscale = unscale_by(part.out.scale_bias + (scales.biases ? scales.biases[c] : 0));
  const float factor = scales.factors ? scales.factors[c] : scales.factor;
  for (int64_t m = 0; m < n; ++m) finish_one(part.out, unscale, r + m, c, sums[m], factor);
}

}  // namespace
}  // namespace octoscale
