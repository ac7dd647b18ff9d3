// Sums as tensor cores make them, for Python.

#include "accumulate/accumulate.h"
#include "bindings/bindings.h"

namespace octoscale {
namespace {

void sum_up(int isa, int block, int fraction, int kept, int floor, int joined, int64_t chain, uintptr_t a, int a_format,
            int64_t a_row_stride, int64_t a_col_stride, uintptr_t b, int b_format, int64_t b_row_stride,
            int64_t b_col_stride, int64_t m, int64_t k, int64_t n, uintptr_t out, int num_threads) {
  const Matrix left = {pointer<const void>(a), false, static_cast<Fp8>(a_format), m, k, a_row_stride, a_col_stride};
  const Matrix right = {pointer<const void>(b), false, static_cast<Fp8>(b_format), k, n, b_row_stride, b_col_stride};
  accumulate(static_cast<Isa>(isa), {block, fraction, kept, floor, joined, chain}, left, right, pointer<float>(out),
             num_threads);
}

}  // namespace

void bind_accumulation(nb::module_& module) { module.def("accumulate", &sum_up, release_gil()); }

}  // namespace octoscale
