// The end of a product for AVX-512: unscale, add the bias, round once, store up to 16 columns of a row.
#pragma once

#include <immintrin.h>

#include "common/lanes_avx512.h"
#include "product/elements.h"
#include "product/matmul.h"

namespace octoscale {
namespace {

// The outputs [r, c .. c + 15] that the mask names, from their sums: finish_one of elements.h, in lanes.
inline void finish(const Output& out, Unscale unscale, int64_t r, int64_t c, __m512 sums, __mmask16 mask) {
  __m512 value = _mm512_mul_ps(_mm512_mul_ps(sums, _mm512_set1_ps(unscale.first)), _mm512_set1_ps(unscale.last));
  if (out.bias) value = _mm512_add_ps(value, load_floats(out.bias, out.bias_type, c, mask));
  store_floats(out.data, out.type, r * out.row_stride + c, value, mask);
}

// The same of a part.
inline void finish(const Part& part, int64_t r, int64_t c, __m512 sums, __mmask16 mask) {
  const ManyScales& scales = part.scales;
  if (scales.factors) sums = _mm512_mul_ps(sums, _mm512_maskz_loadu_ps(mask, scales.factors + c));
  else if (scales.factor != 1.0f) sums = _mm512_mul_ps(sums, _mm512_set1_ps(scales.factor));
  if (!scales.biases) return finish(part.out, unscale_by(part.out.scale_bias), r, c, sums, mask);
  alignas(64) float values[16];
  _mm512_store_ps(values, sums);
  for (int64_t i = 0; i < 16; ++i) {
    if (!(mask >> i & 1)) continue;
    finish_one(part.out, unscale_by(part.out.scale_bias + scales.biases[c + i]), r, c + i, values[i]);
  }
}

}  // namespace
}  // namespace octoscale
