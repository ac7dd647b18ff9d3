// Many rows, for AMX: the same product as gemm_avx512.cpp, in tiles of 16 x 32 values, ten times the arithmetic.
//
//     for each block of rows of a, decoded once by all threads together into tiles
//       for each range of columns of b and run of rows (a thread's task)
//         for each block of k: pack codes of b into tiles                         (second-level cache)
//           for each 32 rows: for each 32 columns: 32 x 32 sums in registers
//         unscale, add the bias, round, store
//
// At this rate no operand may come from far: a block of k of a range of columns, and of 32 rows, stay in the
// second-level cache, and a range is wide enough that the rows, from the third, are needed seldom.

#include <immintrin.h>

#include <algorithm>

#include "common/lanes_avx512.h"
#include "common/pieces.h"
#include "common/pool.h"
#include "common/scratch.h"
#include "product/finish_avx512.h"
#include "product/pack_avx512.h"
#include "product/tile_amx.h"

namespace octoscale {
namespace {

constexpr int64_t pairs_of_tile = tile_side, values_of_tile = 2 * tile_side;
constexpr int64_t most_tiles = 64;                  // along k: a block of 32 rows takes at most 128 KiB
constexpr int64_t most_cols = 256;                  // a packed block of b takes at most 1 MiB
constexpr int64_t block_values = int64_t{1} << 23;  // the decoded rows of a take at most 16 MiB, or are 64

// Where the pairs of a row of a go: tile t at [t * tile_size], `num_tiles` of them.
struct RowOfTiles {
  uint32_t* first;
  int64_t num_tiles;

  void store(int64_t tile, __m512i pairs) const {
    if (tile < num_tiles) _mm512_storeu_si512(first + tile * tile_size, pairs);
  }
};

// Codes along a row: 64 of them are a row of two tiles.
template <class Table>
void decode_row(const Table& table, const uint8_t* codes, int64_t n, RowOfTiles to) {
  for (int64_t k = 0; k == 0 || k < n; k += 64) {
    __m512i first, second;
    table.decode_ordered(load_codes(codes + k, n - k), first, second);
    to.store(k / values_of_tile, first);
    to.store(k / values_of_tile + 1, second);
  }
}

// The same of bfloat16, contiguous or not.
void copy_row(const uint16_t* values, int64_t n, int64_t stride, RowOfTiles to) {
  for (int64_t k = 0; k == 0 || k < n; k += values_of_tile)
    to.store(k / values_of_tile, load_halves(values + k * stride, stride, n - k));
}

// Rows [first, last) of a as tiles [row / 16][tile along k]. Codes are contiguous along a row; bfloat16 need not be.
void decode_rows(const Matrix& a, int64_t first, int64_t last, int64_t num_tiles, uint32_t* out, int num_threads) {
  parallel_for(static_cast<int>(ceil_div(last - first, tile_side)), num_threads, [&](int task) {
    uint32_t* tiles = out + task * num_tiles * tile_size;
    const int64_t from = first + task * tile_side;
    with_table(a.format, 1.0f, Float::bf16, [&](const auto& table) {
      for (int64_t r = from; r < std::min(last, from + tile_side); ++r) {
        const RowOfTiles to = {tiles + (r - from) * tile_side, num_tiles};
        if (a.is_bf16) copy_row(static_cast<const uint16_t*>(a.data) + r * a.row_stride, a.cols, a.col_stride, to);
        else decode_row(table, static_cast<const uint8_t*>(a.data) + r * a.row_stride, a.cols, to);
        scale_row(a, r, [&](int64_t k) {
          return reinterpret_cast<uint16_t*>(to.first + k / values_of_tile * tile_size);
        });
      }
    });
  });
}

// The same where the columns of codes are contiguous: packed as if a were b, then each tile transposed.
void decode_columns(const Matrix& a, int64_t first, int64_t last, int64_t num_tiles, uint32_t* out, int num_threads) {
  const Matrix transposed = {a.data, false, a.format, a.cols, last, a.col_stride, a.row_stride,
                             a.inner.transposed()};
  const int64_t group = num_tiles * tile_size;
  parallel_for(static_cast<int>(ceil_div(last - first, panel_cols)), num_threads, [&](int task) {
    const int64_t from = first + task * panel_cols;
    uint32_t* tiles = out + task * (panel_cols / tile_side) * group;
    pack(transposed, from, 0, num_tiles * pairs_of_tile, {tile_side, group}, tiles);
    for (int64_t t = 0; t < panel_cols / tile_side * num_tiles; ++t) {
      __m512i rows[tile_side];
      for (int64_t i = 0; i < tile_side; ++i) rows[i] = _mm512_load_si512(tiles + t * tile_size + i * tile_side);
      store_transposed(rows, tiles + t * tile_size);
    }
  });
}

// Which part of the output a task computes.
struct Range {
  int64_t first_row, num_rows, first_col, num_cols;
};

void store_block(float* sums, const Range& range, int64_t r, int64_t c, const Output& out, Scales scales) {
  for (int64_t i = 0; i < std::min(block_side, range.num_rows - r); ++i)
    for (int64_t half = 0; half < 2 && c + half * tile_side < range.num_cols; ++half) {
      const int64_t column = c + half * tile_side;
      finish(out, scales, range.first_row + r + i, range.first_col + column,
             _mm512_load_ps(row_of_block(sums, i, half)), first_lanes<__mmask16>(range.num_cols - column));
    }
}

// `a` begins with the tiles of the range's rows, num_tiles of them along k.
void multiply_range(const uint32_t* a, int64_t num_tiles, const Matrix& b, const Range& range, const Output& out,
                    Scales scales) {
  static thread_local Scratch<uint32_t> packed_scratch;
  static thread_local Scratch<float> sums_scratch;
  const int64_t depth = ceil_div(num_tiles, ceil_div(num_tiles, most_tiles)), group = depth * tile_size;
  const int64_t num_col_blocks = ceil_div(range.num_cols, block_side);
  // Sums that are whole after one block of k need not be kept.
  const int64_t num_kept = depth == num_tiles ? 1 : ceil_div(range.num_rows, block_side) * num_col_blocks;
  uint32_t* packed = packed_scratch.reserve(round_up(range.num_cols, panel_cols) / tile_side * group);
  float* sums = sums_scratch.reserve(num_kept * block_size);
  TileRegisters registers;
  for (int64_t tile = 0; tile < num_tiles; tile += depth) {
    const int64_t num = std::min(depth, num_tiles - tile);
    for (int64_t c = 0; c < range.num_cols; c += panel_cols)
      pack(b, range.first_col + c, tile * values_of_tile, num * pairs_of_tile, {tile_side, group},
           packed + c / tile_side * group);
    for (int64_t r = 0; r < range.num_rows; r += block_side)
      for (int64_t c = 0; c < range.num_cols; c += block_side) {
        float* block = sums + (r / block_side * num_col_blocks + c / block_side) % num_kept * block_size;
        const TileRows rows = {a + (r / tile_side * num_tiles + tile) * tile_size, num_tiles * tile_size};
        multiply_block(rows, {packed + c / tile_side * group, group}, num, block, tile == 0);
        if (tile + num == num_tiles) store_block(block, range, r, c, out, scales);
      }
  }
}

struct Plan {
  int64_t num_col_ranges, num_runs;
};

// How to cut columns into ranges and rows into runs, so that the busiest thread has least to do: for each task, its
// share of the product, what it packs (as much work as 40 rows), and rows that come from far (as much as 32 columns).
Plan plan(int64_t num_rows, int64_t num_cols, int num_threads) {
  Plan best = {1, 1};
  int64_t least = INT64_MAX;
  const int64_t least_ranges = ceil_div(num_cols, most_cols), most_ranges = ceil_div(num_cols, block_side);
  for (int64_t ranges = least_ranges; ranges <= std::min(most_ranges, least_ranges + 2 * num_threads); ++ranges)
    for (int64_t runs = 1; runs <= std::min<int64_t>(ceil_div(num_rows, block_side), 2 * num_threads); runs *= 2) {
      const int64_t rows = round_up(ceil_div(num_rows, runs), block_side);
      const int64_t cols = round_up(ceil_div(num_cols, ranges), block_side);
      const int64_t time = ceil_div(ranges * runs, num_threads) * (rows + 40) * (cols + 32);
      if (time < least) best = {ranges, runs}, least = time;
    }
  return best;
}

}  // namespace

void gemm_amx(const Matrix& a, const Matrix& b, const Output& out, Scales scales, int num_threads) {
  static thread_local Scratch<uint32_t> scratch;
  if (a.rows == 0 || b.cols == 0) return;
  const int64_t num_tiles = std::max<int64_t>(1, ceil_div(a.cols, values_of_tile));
  const int64_t row_size = num_tiles * pairs_of_tile;
  const int64_t block_rows = std::max(panel_cols, block_values / (2 * row_size) / panel_cols * panel_cols);
  uint32_t* tiles = scratch.reserve(round_up(std::min(a.rows, block_rows), panel_cols) * row_size);
  for (int64_t first = 0; first < a.rows; first += block_rows) {
    const int64_t num_rows = std::min(block_rows, a.rows - first);
    const auto decode = a.is_bf16 || a.col_stride == 1 ? decode_rows : decode_columns;
    decode(a, first, first + num_rows, num_tiles, tiles, num_threads);
    const auto [num_col_ranges, num_runs] = plan(num_rows, b.cols, num_threads);
    const int64_t rows = round_up(ceil_div(num_rows, num_runs), block_side);
    const int64_t cols = round_up(ceil_div(b.cols, num_col_ranges), block_side);
    parallel_for(static_cast<int>(num_col_ranges * num_runs), num_threads, [&, num_runs = num_runs](int task) {
      const int64_t r = task % num_runs * rows, c = task / num_runs * cols;
      if (r >= num_rows || c >= b.cols) return;
      const Range range = {first + r, std::min(rows, num_rows - r), c, std::min(cols, b.cols - c)};
      multiply_range(tiles + r * row_size, num_tiles, b, range, out, scales);
    });
  }
}

}  // namespace octoscale
