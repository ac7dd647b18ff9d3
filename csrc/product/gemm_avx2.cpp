// Any number of rows against columns, with one scale or with one for each of them, for AVX2.
//
//     all rows of a, widened once to float32 by all threads, in blocks of k
//       for 24 columns of b (a thread's task)
//         for each block of k: decode codes of b                                 (48 KiB)
//           for each 4 rows and 3 columns: 12 registers += 8 values of each row times 8 of each column
//         add up the lanes, unscale, add the bias, round, store
//
// The lanes of a register run along k, so that nothing is transposed, and each sum has an order of its own, which
// depends neither on the other rows nor on how many there are. Few rows have it from `dot_row` (dot_avx2.h), which
// decodes codes on the way to their one use.

#include <immintrin.h>

#include <algorithm>

#include "common/constants.h"
#include "common/decode_avx2.h"
#include "common/pieces.h"
#include "common/pool.h"
#include "common/scratch.h"
#include "product/dot_avx2.h"
#include "product/elements.h"

namespace octoscale {
namespace {

constexpr int64_t block_k = 512, block_cols = 24, block_rows = 128, few_rows = 4;
constexpr int64_t lanes = 8;

// n codes as float32, with zeros up to a multiple of 8.
template <Fp8 F>
void decode_codes(const uint8_t* codes, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) _mm256_store_ps(out + i, decode_vector<F>(load_codes(codes + i)));
  if (i < n) {
    _mm256_store_ps(out + i, decode_vector<F>(load_codes(padded_codes(codes + i, n - i).data())));
    for (; n % lanes != 0; ++n) out[n] = 0;
  }
}

// Values [k, k + n) of row r of a.
void widen(const Matrix& a, int64_t r, int64_t k, int64_t n, float* out) {
  if (!a.is_bf16 && a.col_stride == 1) {
    const uint8_t* codes = static_cast<const uint8_t*>(a.data) + r * a.row_stride + k;
    return with_format(a.format, [&](auto F) { decode_codes<F.value>(codes, n, out); });
  }
  if (a.is_bf16 && a.col_stride == 1) {
    const uint16_t* values = static_cast<const uint16_t*>(a.data) + r * a.row_stride + k;
    for (int64_t i = 0; i < n; ++i) out[i] = bf16_to_float(values[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = element(a, r, k + i);
  }
  std::fill(out + n, out + round_up(n, lanes), 0.0f);
}

// sums [R][C][8 lanes] += a [R][n] times b [C][n]; rows of sums are block_cols columns apart.
template <int R, int C>
void add_tile(const float* a, const float* b, int64_t n, float* sums) {
  __m256 sum[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sum[r][c] = _mm256_load_ps(sums + (r * block_cols + c) * lanes);
  for (int64_t i = 0; i < n; i += lanes) {
    __m256 column[C];
    for (int c = 0; c < C; ++c) column[c] = _mm256_load_ps(b + c * block_k + i);
    for (int r = 0; r < R; ++r) {
      const __m256 row = _mm256_load_ps(a + r * block_k + i);
      for (int c = 0; c < C; ++c) sum[r][c] = _mm256_fmadd_ps(row, column[c], sum[r][c]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) _mm256_store_ps(sums + (r * block_cols + c) * lanes, sum[r][c]);
}

template <int R>
void add_rows(const float* a, const float* b, int64_t num_cols, int64_t n, float* sums) {
  int64_t c = 0;
  for (; c + 3 <= num_cols; c += 3) add_tile<R, 3>(a, b + c * block_k, n, sums + c * lanes);
  if (num_cols - c == 2) add_tile<R, 2>(a, b + c * block_k, n, sums + c * lanes);
  if (num_cols - c == 1) add_tile<R, 1>(a, b + c * block_k, n, sums + c * lanes);
}

void add_block(const float* a, int64_t num_rows, const float* b, int64_t num_cols, int64_t n, float* sums) {
  int64_t r = 0;
  for (; r + 4 <= num_rows; r += 4) add_rows<4>(a + r * block_k, b, num_cols, n, sums + r * block_cols * lanes);
  a += r * block_k;
  sums += r * block_cols * lanes;
  if (num_rows - r == 3) add_rows<3>(a, b, num_cols, n, sums);
  if (num_rows - r == 2) add_rows<2>(a, b, num_cols, n, sums);
  if (num_rows - r == 1) add_rows<1>(a, b, num_cols, n, sums);
}

// Columns [c, c + n) of row r, from their sums.
void finish_row(const Output& out, Scales scales, int64_t r, int64_t c, int64_t n, float* values) {
  for (int64_t i = 0; i < n; ++i) {
    const Unscale unscale = unscale_by(scales.rows ? scales.rows[r] + scales.cols[c + i] : out.scale_bias);
    values[i] = values[i] * unscale.first * unscale.last * (scales.factors ? scales.factors[c + i] : scales.factor);
  }
  if (out.bias)
    for (int64_t i = 0; i < n; ++i) values[i] += load_any(out.bias, out.bias_type, c + i);
  with_float(out.type, [&](auto T) {
    for (int64_t i = 0; i < n; ++i) store<T.value>(out.data, r * out.row_stride + c + i, values[i]);
  });
}

// block_cols columns from c on, or those that are left. a: [blocks of k][all rows][block_k].
void multiply_columns(const float* a, int64_t num_rows, const Matrix& b, int64_t c, const Output& out, Scales scales) {
  static thread_local Scratch<float> decoded_scratch, sums_scratch;
  float* decoded = decoded_scratch.reserve(block_cols * block_k);
  float* sums = sums_scratch.reserve(block_rows * block_cols * lanes);
  const int64_t num_cols = std::min(block_cols, b.cols - c);
  for (int64_t first = 0; first < num_rows; first += block_rows) {
    const int64_t n = std::min(block_rows, num_rows - first);
    std::fill_n(sums, n * block_cols * lanes, 0.0f);
    for (int64_t k = 0; k < b.rows; k += block_k) {
      const int64_t length = std::min(block_k, b.rows - k);
      with_format(b.format, [&](auto F) {
        for (int64_t i = 0; i < num_cols; ++i)
          decode_codes<F.value>(static_cast<const uint8_t*>(b.data) + (c + i) * b.col_stride + k, length,
                                decoded + i * block_k);
      });
      add_block(a + k * num_rows + first * block_k, n, decoded, num_cols, round_up(length, lanes), sums);
    }
    for (int64_t r = 0; r < n; ++r) {
      float values[block_cols];
      for (int64_t i = 0; i < num_cols; ++i) values[i] = sum_lanes(_mm256_load_ps(sums + (r * block_cols + i) * lanes));
      finish_row(out, scales, first + r, c, num_cols, values);
    }
  }
}

// The same of few rows: a [rows][padded].
void stream_columns(const float* a, int64_t num_rows, int64_t padded, const Matrix& b, int64_t c, const Output& out,
                    Scales scales) {
  float values[few_rows][block_cols];
  const int64_t num_cols = std::min(block_cols, b.cols - c);
  with_format(b.format, [&](auto F) {
    for (int64_t i = 0; i < num_cols; ++i) {
      float sums[few_rows] = {};
      const uint8_t* codes = static_cast<const uint8_t*>(b.data) + (c + i) * b.col_stride;
      dot_row_any<F.value, 1>(num_rows, codes, b.rows, a, padded, sums);
      for (int64_t r = 0; r < num_rows; ++r) values[r][i] = sums[r];
    }
  });
  for (int64_t r = 0; r < num_rows; ++r) finish_row(out, scales, r, c, num_cols, values[r]);
}

}  // namespace

void gemm_avx2(const Matrix& a, const Matrix& b, const Output& out, Scales scales, int num_threads) {
  if (a.rows == 0 || b.cols == 0) return;
  static thread_local Scratch<float> scratch;
  const bool is_few = a.rows <= few_rows;
  const int64_t size_k = is_few ? std::max(lanes, round_up(a.cols, lanes)) : block_k;
  float* widened = scratch.reserve(std::max<int64_t>(1, a.rows * round_up(a.cols, size_k)));
  const int64_t work = a.rows * a.cols * b.cols, least_per_task = 1 << 17;
  const int num_tasks = static_cast<int>(std::clamp<int64_t>(work / least_per_task, 1, std::max(num_threads, 1)));
  parallel_for(num_tasks, num_threads, [&](int task) {
    for (int64_t r = a.rows * task / num_tasks; r < a.rows * (task + 1) / num_tasks; ++r)
      for (int64_t k = 0; k < a.cols; k += size_k)
        widen(a, r, k, std::min(size_k, a.cols - k), widened + k * a.rows + r * size_k);
  });
  const int64_t num_blocks = ceil_div(b.cols, block_cols);
  parallel_for(num_tasks, num_threads, [&](int task) {
    for (int64_t i = num_blocks * task / num_tasks; i < num_blocks * (task + 1) / num_tasks; ++i)
      if (is_few) stream_columns(widened, a.rows, size_k, b, i * block_cols, out, scales);
      else multiply_columns(widened, a.rows, b, i * block_cols, out, scales);
  });
}

}  // namespace octoscale
