#include "product.h"

#include <algorithm>

#include "pages.h"
#include "scalar.h"

namespace octoscale {
namespace {

Unscale unscale_by(int scale_bias) {
  const int last = std::clamp(-scale_bias, -126, 126);
  return {power_of_two(-scale_bias - last), power_of_two(last)};
}

bool can_stream(const Matrix& a, const Matrix& b) { return a.rows <= max_stream_rows && b.row_stride == 1; }

}  // namespace

// Below some hundred thousand multiplications, waking a thread costs more than it saves.
int num_stream_tasks(const Matrix& a, const Matrix& b, int num_threads) {
  constexpr int64_t least_per_task = 1 << 17;
  return static_cast<int>(std::clamp<int64_t>(a.rows * b.rows * b.cols / least_per_task, 1, num_threads));
}

bool matmul(Isa isa, const Matrix& a, const Matrix& b, const Output& out, int num_threads) {
  const Unscale unscale = unscale_by(out.scale_bias);
  prefer_huge_pages(out.data, a.rows * out.row_stride * (out.type == Float::f32 ? 4 : 2));
  if (isa == Isa::scalar) return product_scalar(a, b, out, unscale, num_threads), true;
#if defined(OCTOSCALE_X86)
  if (isa == Isa::avx512 && !can_stream(a, b)) return gemm_avx512(a, b, out, unscale, num_threads), true;
  if (isa == Isa::avx512) return stream_avx512(a, b, out, unscale, num_threads), true;
  if (can_stream(a, b)) return stream_avx2(a, b, out, unscale, num_threads), true;
#endif
  return false;
}

}  // namespace octoscale
