// Few rows against a weight in codes, for AVX2: decoded 8 at a time to float32, multiplied and summed by FMA.

#include <immintrin.h>

#include <algorithm>

#include "common/constants.h"
#include "common/pieces.h"
#include "common/scratch.h"
#include "product/columns.h"
#include "product/dot_avx2.h"
#include "product/elements.h"

namespace octoscale {
namespace {

// Row r of a as float32, padded with zeros to whole vectors of 8.
void widen_row(const Matrix& a, int64_t r, int64_t padded, float* out) {
  for (int64_t k = 0; k < a.cols; ++k) out[k] = element(a, r, k);
  std::fill(out + a.cols, out + padded, 0.0f);
}

// Some rows of a column. Once for all formats: in the loop of each, it would crowd out what is hot.
[[gnu::noinline]] void finish_rows(const Part& part, int64_t r, int64_t n, int64_t c, const float* sums) {
  finish_column(part, r, n, c, sums);
}

// Columns [first, last) of one part.
void stream_share(int64_t num_rows, const Part& part, int64_t first, int64_t last, const float* x, int64_t padded) {
  const Matrix& b = part.b;
  const ManyScales& scales = part.scales;
  with_format(b.format, [&](auto F) {
    for (int64_t c = first; c < last; ++c) {
      const uint8_t* codes = static_cast<const uint8_t*>(b.data) + c * b.col_stride;
      if (scales.runs) {
        const float sum = dot_runs<F.value>(codes, b.rows, x, scales.runs + c / run_length * scales.stride);
        finish_rows(part, 0, 1, c, &sum);
        continue;
      }
      for (int64_t r = 0; r < num_rows; r += 4) {
        float sums[4];
        const int64_t n = std::min<int64_t>(4, num_rows - r);
        dot_row_any<F.value, 4>(n, codes, b.rows, x + r * padded, padded, sums);
        finish_rows(part, r, n, c, sums);
      }
    }
  });
}

}  // namespace

void stream_avx2(const Matrix& a, const Part* parts, int num_parts, int num_threads) {
  static thread_local Scratch<float> scratch;
  const int64_t padded = round_up(a.cols, 8);
  float* x = scratch.reserve(std::max<int64_t>(1, a.rows * padded));
  for (int64_t r = 0; r < a.rows; ++r) widen_row(a, r, padded, x + r * padded);
  deal_columns(a.rows, parts, num_parts, num_threads, [&](const Part& part, int64_t first, int64_t last) {
    stream_share(a.rows, part, first, last, x, padded);
  });
}

}  // namespace octoscale
