// Many rows, for AVX-512: a tiled product in the manner of Goto, with codes decoded while they are packed.
//
//     for each block of rows of a, decoded once by all threads together          (at most a few MiB)
//       for each panel of 64 columns of b (a thread's task)
//         for each block of k: pack codes of b as pairs of bfloat16              (second-level cache)
//           for each tile of 6 rows: 6 x 64 sums in 24 registers += pairs of a, broadcast, times pairs of b
//         unscale, add the bias, round, store
//
// pack_avx512.h has the packing, tile_avx512.h the tile.

#include <immintrin.h>

#include <algorithm>

#include "common/decode_avx512.h"
#include "common/lanes_avx512.h"
#include "common/pieces.h"
#include "common/pool.h"
#include "common/scratch.h"
#include "product/finish_avx512.h"
#include "product/pack_avx512.h"
#include "product/tile_avx512.h"

namespace octoscale {
namespace {

constexpr int64_t block_k = 1024;                 // a packed block of b takes 128 KiB
constexpr int64_t block_values = int64_t{1} << 21;  // a decoded block of a takes at most 4 MiB, or 64 rows
constexpr Packing in_panels = {panel_cols, 16};     // [pair][64 columns]

// num_rows rows of the product from `first` on, for the 64 columns from c on; `a` begins with these rows.
void multiply_panel(Pairs a, const Matrix& b, int64_t first, int64_t num_rows, int64_t c, const Output& out,
                    Scales scales) {
  static thread_local Scratch<uint32_t> packed_scratch;
  static thread_local Scratch<float> sums_scratch;
  uint32_t* packed = packed_scratch.reserve(block_k / 2 * panel_cols);
  float* sums = sums_scratch.reserve(num_rows * panel_cols);
  for (int64_t k = 0; k == 0 || k < b.rows; k += block_k) {
    const int64_t num_pairs = ceil_div(std::min(block_k, b.rows - k), 2);
    pack(b, c, k, num_pairs, in_panels, packed);
    for (int64_t r = 0; r < num_rows; r += group_rows) {
      Pairs group = a;
      group.data += r / group_rows * a.group_stride + k / 2 * a.pair_stride;
      multiply_group(std::min(group_rows, num_rows - r), group, packed, num_pairs, sums + r * panel_cols, k == 0);
    }
  }
  for (int64_t r = 0; r < num_rows; ++r)
    for (int64_t i = c; i < std::min(b.cols, c + panel_cols); i += 16)
      finish(out, scales, first + r, i, _mm512_load_ps(sums + r * panel_cols + i - c),
             first_lanes<__mmask16>(b.cols - i));
}

// Rows [first, last) of a as pairs: [row][pair], where k is contiguous.
template <class Table>
void decode_rows(const Table& table, const Matrix& a, int64_t first, int64_t last, int64_t num_pairs, uint32_t* out) {
  for (int64_t r = first; r < last; ++r, out += num_pairs) {
    uint16_t* values = reinterpret_cast<uint16_t*>(out);
    values[2 * num_pairs - 1] = 0;  // the second of the last pair, if k is odd
    if (a.is_bf16) {
      std::memcpy(values, static_cast<const uint16_t*>(a.data) + r * a.row_stride, static_cast<size_t>(2 * a.cols));
    } else {
      decode_run(table, static_cast<const uint8_t*>(a.data) + r * a.row_stride, a.cols, 1.0f,
                 reinterpret_cast<char*>(values), false);
      scale_row(a, r, [=](int64_t k) { return values + k; });
    }
  }
}

// bfloat16 with contiguous columns, one value at a time: a rare case.
void gather_rows(const Matrix& a, int64_t first, int64_t last, int64_t num_pairs, uint32_t* out) {
  uint16_t* values = reinterpret_cast<uint16_t*>(out);
  for (int64_t r = first; r < last; ++r, values += 2 * num_pairs) {
    values[2 * num_pairs - 1] = 0;
    for (int64_t k = 0; k < a.cols; ++k)
      values[k] = static_cast<const uint16_t*>(a.data)[r * a.row_stride + k * a.col_stride];
  }
}

// Decodes rows [first, last) of a, by all threads.
Pairs decode_block(const Matrix& a, int64_t first, int64_t last, int64_t num_pairs, uint32_t* out, int num_threads) {
  const int64_t num_rows = last - first;
  if (num_pairs == 0) return {out, 0, 0, 0};
  if (a.is_bf16 || a.col_stride == 1) {
    constexpr int64_t run = 16;
    parallel_for(static_cast<int>(ceil_div(num_rows, run)), num_threads, [&](int task) {
      const int64_t from = first + run * task, to = std::min(last, from + run);
      uint32_t* rows = out + run * task * num_pairs;
      if (a.is_bf16 && a.col_stride != 1) return gather_rows(a, from, to, num_pairs, rows);
      with_table(a.format, 1.0f, Float::bf16,
                 [&](const auto& table) { decode_rows(table, a, from, to, num_pairs, rows); });
    });
    return {out, group_rows * num_pairs, num_pairs, 1};
  }
  // Rows of a are columns of its transpose, whose columns are contiguous: pack panels of 64 rows, [panel][pair][64].
  const Matrix transposed = {a.data, false, a.format, a.cols, last, a.col_stride, a.row_stride,
                             a.inner.transposed()};
  const int64_t num_panels = ceil_div(num_rows, panel_cols);
  parallel_for(static_cast<int>(num_panels), num_threads, [&](int panel) {
    pack(transposed, first + panel * panel_cols, 0, num_pairs, in_panels, out + panel * num_pairs * panel_cols);
  });
  return {out, num_pairs * panel_cols, 1, panel_cols};
}

// How many runs to cut the groups of rows of a panel into, so that the busiest thread has least to do. Each run packs
// the panel anew, which takes about a tenth of the time of a group.
int64_t runs_per_panel(int64_t num_groups, int64_t num_panels, int num_threads) {
  int64_t best = 1, least = INT64_MAX;
  for (int64_t num_runs = 1; num_runs <= num_groups && num_runs <= 4 * num_threads; ++num_runs) {
    const int64_t tasks_of_busiest = ceil_div(num_panels * num_runs, num_threads);
    const int64_t time = tasks_of_busiest * (10 * ceil_div(num_groups, num_runs) + 1);
    if (time < least) best = num_runs, least = time;
  }
  return best;
}

}  // namespace

void gemm_avx512(const Matrix& a, const Matrix& b, const Output& out, Scales scales, int num_threads) {
  static thread_local Scratch<uint32_t> scratch;
  if (a.rows == 0 || b.cols == 0) return;
  const int64_t num_pairs = ceil_div(a.cols, 2), num_panels = ceil_div(b.cols, panel_cols);
  const int64_t wanted_rows = block_values / std::max<int64_t>(1, 2 * num_pairs) / group_rows * group_rows;
  const int64_t block_rows = std::max(group_rows, wanted_rows);
  const int64_t num_decoded = round_up(std::min(a.rows, block_rows), group_rows);
  uint32_t* decoded = scratch.reserve(num_decoded * num_pairs);
  for (int64_t first = 0; first < a.rows; first += block_rows) {
    const int64_t num_rows = std::min(block_rows, a.rows - first);
    const Pairs pairs = decode_block(a, first, first + num_rows, num_pairs, decoded, num_threads);
    const int64_t num_groups = ceil_div(num_rows, group_rows);
    const int64_t num_runs = runs_per_panel(num_groups, num_panels, num_threads);
    const int64_t run = ceil_div(num_groups, num_runs) * group_rows;
    parallel_for(static_cast<int>(num_panels * num_runs), num_threads, [&](int task) {
      const int64_t begin = task % num_runs * run;
      if (begin >= num_rows) return;
      Pairs rows = pairs;
      rows.data += begin / group_rows * pairs.group_stride;
      multiply_panel(rows, b, first + begin, std::min(run, num_rows - begin), task / num_runs * panel_cols, out,
                     scales);
    });
  }
}

}  // namespace octoscale
