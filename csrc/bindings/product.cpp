// Products, for Python.

#include <nanobind/stl/tuple.h>

#include <tuple>

#include "bindings/bindings.h"
#include "product/matmul.h"

namespace octoscale {
namespace {

// kind: the number of a format, or -1 for bfloat16.
Matrix matrix(uintptr_t address, int kind, int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride) {
  const Fp8 format = static_cast<Fp8>(kind < 0 ? 0 : kind);
  return {pointer<const void>(address), kind < 0, format, rows, cols, row_stride, col_stride};
}

bool multiply(int isa, uintptr_t a, int a_kind, int64_t a_row_stride, int64_t a_col_stride, uintptr_t b, int b_kind,
              int64_t b_row_stride, int64_t b_col_stride, int64_t m, int64_t k, int64_t n, int scale_bias,
              uintptr_t bias, int bias_type, uintptr_t out, int type, int num_threads) {
  const Output output = {pointer<void>(out), static_cast<Float>(type), n,
                         pointer<const void>(bias), static_cast<Float>(bias_type), scale_bias};
  return matmul(static_cast<Isa>(isa), matrix(a, a_kind, m, k, a_row_stride, a_col_stride),
                matrix(b, b_kind, k, n, b_row_stride, b_col_stride), output, num_threads);
}

// Where the exponents are, or 0; rows and columns of a group; strides.
using InnerFacts = std::tuple<uintptr_t, int64_t, int64_t, int64_t, int64_t>;

Inner inner(const InnerFacts& facts) {
  const auto& [address, row_group, col_group, row_stride, col_stride] = facts;
  return {pointer<const int32_t>(address), row_group, col_group, row_stride, col_stride};
}

bool multiply_by_rows(int isa, uintptr_t a, int a_kind, int64_t a_row_stride, int64_t a_col_stride, uintptr_t b,
                      int b_kind, int64_t b_row_stride, int64_t b_col_stride, int64_t m, int64_t k, int64_t n,
                      const InnerFacts& a_inner, const InnerFacts& b_inner, uintptr_t row_biases,
                      uintptr_t col_biases, uintptr_t bias, int bias_type, uintptr_t out, int type, int num_threads) {
  const Output output = {pointer<void>(out), static_cast<Float>(type), n,
                         pointer<const void>(bias), static_cast<Float>(bias_type), 0};
  const Scales scales = {pointer<const int32_t>(row_biases), pointer<const int32_t>(col_biases)};
  Matrix left = matrix(a, a_kind, m, k, a_row_stride, a_col_stride);
  Matrix right = matrix(b, b_kind, k, n, b_row_stride, b_col_stride);
  left.inner = inner(a_inner);
  right.inner = inner(b_inner);
  return matmul_by_rows(static_cast<Isa>(isa), left, right, output, scales, num_threads);
}

}  // namespace

void bind_products(nb::module_& module) {
  module.def("matmul", &multiply, release_gil());
  module.def("matmul_by_rows", &multiply_by_rows, release_gil());
}

}  // namespace octoscale
