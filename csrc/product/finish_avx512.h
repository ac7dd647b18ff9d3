// The end of a product for AVX-512: unscale, add the bias, round once, store up to 16 columns of a row.
#pragma once

#include <immintrin.h>

#include "common/lanes_avx512.h"
#include "product/matmul.h"

namespace octoscale {
namespace {

// The outputs [r, c .. c + 15] that the mask names, from their sums: finish_one of elements.h, in lanes.
inline void finish(const Output& out, Unscale unscale, int64_t r, int64_t c, __m512 sums, __mmask16 mask) {
  __m512 value = _mm512_mul_ps(_mm512_mul_ps(sums, _mm512_set1_ps(unscale.first)), _mm512_set1_ps(unscale.last));
  if (out.bias) value = _mm512_add_ps(value, load_floats(out.bias, out.bias_type, c, mask));
  store_floats(out.data, out.type, r * out.row_stride + c, value, mask);
}

}  // namespace
}  // namespace octoscale
