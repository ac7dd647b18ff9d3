// The product as three plain loops, kept scalar: what the vector kernels are compared with.

#include "common/constants.h"
#include "common/pool.h"
#include "common/scalar.h"
#include "product/matmul.h"

namespace octoscale {
namespace {

float element(const Matrix& m, int64_t r, int64_t c) {
  const int64_t i = r * m.row_stride + c * m.col_stride;
  return m.is_bf16 ? load<Float::bf16>(m.data, i) : decode_one(static_cast<const uint8_t*>(m.data)[i], row(m.format));
}

float load_any(const void* x, Float type, int64_t i) {
  float value = 0;
  with_float(type, [&](auto T) { value = load<T.value>(x, i); });
  return value;
}

void store_any(const Output& out, int64_t r, int64_t c, float sum, Unscale unscale) {
  float value = sum * unscale.first * unscale.last;
  if (out.bias) value += load_any(out.bias, out.bias_type, c);
  with_float(out.type, [&](auto T) { store<T.value>(out.data, r * out.row_stride + c, value); });
}

}  // namespace

void product_scalar(const Matrix& a, const Matrix& b, const Output& out, Unscale unscale, int num_threads) {
  parallel_for(static_cast<int>(a.rows), num_threads, [&](int r) {
    for (int64_t c = 0; c < b.cols; ++c) {
      float sum = 0;
      for (int64_t k = 0; k < a.cols; ++k) sum += element(a, r, k) * element(b, k, c);
      store_any(out, r, c, sum, unscale);
    }
  });
}

}  // namespace octoscale
