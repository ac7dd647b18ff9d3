// The product as three plain loops, kept scalar: what the vector kernels are compared with.

#include <algorithm>

#include "common/pool.h"
#include "product/elements.h"

namespace octoscale {

namespace {

// finish(r, c, sum): each output.
template <class Finish>
void multiply(const Matrix& a, const Matrix& b, int num_threads, Finish finish) {
  parallel_for(static_cast<int>(a.rows), num_threads, [&](int r) {
    for (int64_t c = 0; c < b.cols; ++c) {
      float sum = 0;
      for (int64_t k = 0; k < a.cols; ++k) sum += element(a, r, k) * element(b, k, c);
      finish(r, c, sum);
    }
  });
}

}  // namespace

void product_scalar(const Matrix& a, const Matrix& b, const Output& out, Unscale unscale, int num_threads) {
  multiply(a, b, num_threads, [&](int64_t r, int64_t c, float sum) { finish_one(out, unscale, r, c, sum); });
}

void stream_scalar(const Matrix& a, const Part* parts, int num_parts, int num_threads) {
  for (const Part* part = parts; part < parts + num_parts; ++part) {
    const auto column = [&](int64_t r, int64_t c) {
      float total = 0;
      for (int64_t first = 0; first < a.cols; first += run_length) {
        float sum = 0;
        const int64_t end = std::min(a.cols, first + run_length);
        for (int64_t k = first; k < end; ++k) sum += element(a, r, k) * element(part->b, k, c);
        total += sum * run_scale(part->scales, c, first / run_length);
      }
      finish_column(*part, r, 1, c, &total);
    };
    parallel_for(static_cast<int>(part->b.cols), num_threads, [&](int c) {
      for (int64_t r = 0; r < a.rows; ++r) column(r, c);
    });
  }
}

void rows_scalar(const Matrix& a, const Matrix& b, const Output& out, Scales scales, int num_threads) {
  multiply(a, b, num_threads, [&](int64_t r, int64_t c, float sum) {
    const float factor = scales.factors ? scales.factors[c] : scales.factor;
    finish_one(out, unscale_by(scales.rows[r] + scales.cols[c]), r, c, sum, factor);
  });
}

}  // namespace octoscale
