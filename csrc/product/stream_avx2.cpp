// Few rows against a weight in codes, for AVX2: decoded 8 at a time to float32, multiplied and summed by FMA.

#include <immintrin.h>

#include <algorithm>

#include "common/constants.h"
#include "common/decode_avx2.h"
#include "common/pieces.h"
#include "common/scratch.h"
#include "product/columns.h"
#include "product/elements.h"

namespace octoscale {
namespace {

// Row r of a as float32, padded with zeros to whole vectors of 8.
void widen_row(const Matrix& a, int64_t r, int64_t padded, float* out) {
  for (int64_t k = 0; k < a.cols; ++k) out[k] = element(a, r, k);
  std::fill(out + a.cols, out + padded, 0.0f);
}

float sum_lanes(__m256 x) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// The dot products of one row of codes with M rows of x.
template <Fp8 F, int M>
void dot_row(const uint8_t* codes, int64_t k, const float* x, int64_t padded, float* sums) {
  constexpr int parts = M == 1 ? 4 : 1;  // so that one multiplication need not wait for the one before
  __m256 sum[M][parts];
  for (auto& row : sum)
    for (auto& part : row) part = _mm256_setzero_ps();
  const auto add = [&](const uint8_t* from, int64_t i, int part) {
    const __m256 weight = decode_vector<F>(load_codes(from));
    for (int m = 0; m < M; ++m)
      sum[m][part] = _mm256_fmadd_ps(weight, _mm256_load_ps(x + m * padded + i), sum[m][part]);
  };
  int64_t i = 0;
  for (; i + 8 * parts <= k; i += 8 * parts) {
    _mm_prefetch(reinterpret_cast<const char*>(codes + i) + 1024, _MM_HINT_T0);
    for (int part = 0; part < parts; ++part) add(codes + i + 8 * part, i + 8 * part, part);
  }
  for (; i + 8 <= k; i += 8) add(codes + i, i, 0);
  if (i < k) add(padded_codes(codes + i, k - i).data(), i, 0);
  for (int m = 0; m < M; ++m) {
    __m256 total = sum[m][0];
    for (int part = 1; part < parts; ++part) total = _mm256_add_ps(total, sum[m][part]);
    sums[m] = sum_lanes(total);
  }
}

template <Fp8 F>
void dot_row_any(int64_t num_rows, const uint8_t* codes, int64_t k, const float* x, int64_t padded, float* sums) {
  switch (num_rows) {
    case 1: return dot_row<F, 1>(codes, k, x, padded, sums);
    case 2: return dot_row<F, 2>(codes, k, x, padded, sums);
    case 3: return dot_row<F, 3>(codes, k, x, padded, sums);
    default: return dot_row<F, 4>(codes, k, x, padded, sums);
  }
}

// Some rows of a column. Once for all formats: in the loop of each, it would crowd out what is hot.
[[gnu::noinline]] void finish_rows(const Output& out, Unscale unscale, int64_t r, int64_t n, int64_t c,
                                   const float* sums) {
  for (int64_t m = 0; m < n; ++m) finish_one(out, unscale, r + m, c, sums[m]);
}

// Columns [first, last) of one part.
void stream_share(int64_t num_rows, const Part& part, int64_t first, int64_t last, const float* x, int64_t padded) {
  const Matrix& b = part.b;
  const Unscale unscale = unscale_by(part.out.scale_bias);
  with_format(b.format, [&](auto F) {
    for (int64_t c = first; c < last; ++c)
      for (int64_t r = 0; r < num_rows; r += 4) {
        float sums[4];
        const int64_t n = std::min<int64_t>(4, num_rows - r);
        const uint8_t* codes = static_cast<const uint8_t*>(b.data) + c * b.col_stride;
        dot_row_any<F.value>(n, codes, b.rows, x + r * padded, padded, sums);
        finish_rows(part.out, unscale, r, n, c, sums);
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
