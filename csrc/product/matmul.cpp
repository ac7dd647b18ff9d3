// Which kernel a product goes to.

#include "product/matmul.h"

#include "common/pages.h"

namespace octoscale {
namespace {

bool can_stream(const Matrix& a, const Matrix& b) { return a.rows <= max_stream_rows && b.row_stride == 1; }

}  // namespace

void stream(Isa isa, const Matrix& a, const Part* parts, int num_parts, int num_threads) {
#if defined(OCTOSCALE_X86)
  if (isa >= Isa::avx512) return stream_avx512(a, parts, num_parts, num_threads);
  if (isa == Isa::avx2) return stream_avx2(a, parts, num_parts, num_threads);
#endif
  (void)isa;
  stream_scalar(a, parts, num_parts, num_threads);
}

bool matmul_by_rows(Isa isa, const Matrix& a, const Matrix& b, const Output& out, Scales scales, int num_threads) {
  prefer_huge_pages(out.data, a.rows * out.row_stride * size_of(out.type));
#if defined(OCTOSCALE_X86)
#if defined(OCTOSCALE_AMX)
  if (isa == Isa::amx) return gemm_amx(a, b, out, scales, num_threads), true;
#endif
  if (isa >= Isa::avx512) return gemm_avx512(a, b, out, scales, num_threads), true;
  if (isa == Isa::avx2) {
    if (a.inner.exponents || b.inner.exponents) return false;
    return gemm_avx2(a, b, out, scales, num_threads), true;
  }
#endif
  return rows_scalar(a, b, out, scales, num_threads), true;
}

bool matmul(Isa isa, const Matrix& a, const Matrix& b, const Output& out, int num_threads) {
  if (b.is_bf16 && !(isa >= Isa::avx512 && a.is_bf16 && can_stream(a, b))) return false;
  prefer_huge_pages(out.data, a.rows * out.row_stride * size_of(out.type));
  if (isa == Isa::scalar) return product_scalar(a, b, out, unscale_by(out.scale_bias), num_threads), true;
#if defined(OCTOSCALE_X86)
#if defined(OCTOSCALE_AMX)
  if (isa == Isa::amx && !can_stream(a, b)) return gemm_amx(a, b, out, of_output, num_threads), true;
#endif
  if (isa >= Isa::avx512 && !can_stream(a, b)) return gemm_avx512(a, b, out, of_output, num_threads), true;
  // Streaming decodes the weight again for each 4 rows; of many, the caller's float32 GEMM is as fast (docs/LOG.md).
  if (isa == Isa::avx2 && b.row_stride == 1 && a.rows > 4 && a.rows <= 128)
    return gemm_avx2(a, b, out, of_output, num_threads), true;
  if (can_stream(a, b)) {
    const Part part = {b, out, one_scale};
    return stream(isa, a, &part, 1, num_threads), true;
  }
#endif
  return false;
}

}  // namespace octoscale
