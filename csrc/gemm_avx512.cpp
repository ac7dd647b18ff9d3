// Many rows, for AVX-512: a tiled product in the manner of Goto, with codes decoded while they are packed.
//
//     for each block of rows of a, decoded once by all threads together          (at most a few MiB)
//       for each panel of 64 columns of b (a thread's task)
//         for each block of k: pack codes of b as pairs of bfloat16              (second-level cache)
//           for each tile of 6 rows: 6 x 64 sums in 24 registers += pairs of a, broadcast, times pairs of b
//         unscale, add the bias, round, store
//
// vdpbf16ps multiplies pairs along k. So an operand whose k is contiguous in memory (the weight of an output) has its
// pairs ready, but 16 columns must be gathered: a transposition. One whose columns are contiguous (both operands of a
// gradient of the weight) needs two rows interleaved. Both are done on bytes, before they are decoded.

#include <immintrin.h>

#include <algorithm>

#include "decode_avx512.h"
#include "finish_avx512.h"
#include "pool.h"
#include "scratch.h"
#include "tile_avx512.h"

namespace octoscale {
namespace {

constexpr int64_t block_k = 1024;                 // a packed block of b takes 128 KiB
constexpr int64_t block_values = int64_t{1} << 21;  // a decoded block of a takes at most 4 MiB, or 64 rows

// 64 bytes from an address of which only the first n bytes may be read; zeros stand for the rest.
inline __m512i load_some(const uint8_t* from, int64_t n) {
  if (n >= 64) return _mm512_loadu_si512(from);
  return _mm512_maskz_loadu_epi8(n > 0 ? (1ull << n) - 1 : 0, from);
}

// Rows k and k + 1 of 64 columns -> 64 pairs in column order.
template <class Table>
inline void pack_two_rows(const Table& table, __m512i row0, __m512i row1, uint32_t* out) {
  // Unpacking works within 128 bits: the 4 dwords of each quarter are dealt out so that the result is in order.
  const __m512i deal = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  row0 = _mm512_permutexvar_epi32(deal, row0);
  row1 = _mm512_permutexvar_epi32(deal, row1);
  __m512i pairs[4];
  table.decode(_mm512_unpacklo_epi8(row0, row1), pairs[0], pairs[1]);
  table.decode(_mm512_unpackhi_epi8(row0, row1), pairs[2], pairs[3]);
  for (int i = 0; i < 4; ++i) _mm512_storeu_si512(out + 16 * i, pairs[i]);
}

// Columns [c, c + 64) and rows [k, k + 2 * num_pairs) of a matrix whose columns are contiguous -> out[pair][64].
template <class Table>
void pack_by_rows(const Table& table, const Matrix& m, int64_t c, int64_t k, int64_t num_pairs, uint32_t* out) {
  const int64_t num_cols = m.cols - c;
  const uint8_t* from = static_cast<const uint8_t*>(m.data) + c;
  for (int64_t p = 0; p < num_pairs; ++p) {
    const int64_t row = k + 2 * p;
    const __m512i row0 = load_some(from + row * m.row_stride, num_cols);
    const __m512i row1 = row + 1 < m.rows ? load_some(from + (row + 1) * m.row_stride, num_cols) : _mm512_setzero_si512();
    pack_two_rows(table, row0, row1, out + p * panel_cols);
  }
}

inline void transpose_16x16(__m512i (&x)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // x[4g + j] holds, in its quarters q, column 4q + j of rows 4g .. 4g + 3: now the quarters change places.
  for (int j = 0; j < 4; ++j) {
    const __m512i a = _mm512_shuffle_i64x2(x[j], x[4 + j], 0x44), b = _mm512_shuffle_i64x2(x[8 + j], x[12 + j], 0x44);
    const __m512i c = _mm512_shuffle_i64x2(x[j], x[4 + j], 0xEE), d = _mm512_shuffle_i64x2(x[8 + j], x[12 + j], 0xEE);
    t[j] = _mm512_shuffle_i64x2(a, b, 0x88);
    t[4 + j] = _mm512_shuffle_i64x2(a, b, 0xDD);
    t[8 + j] = _mm512_shuffle_i64x2(c, d, 0x88);
    t[12 + j] = _mm512_shuffle_i64x2(c, d, 0xDD);
  }
  for (int i = 0; i < 16; ++i) x[i] = t[i];
}

// The same of a matrix whose rows (k) are contiguous: 16 columns and 64 k at a time.
template <class Table>
void pack_by_columns(const Table& table, const Matrix& m, int64_t c, int64_t k, int64_t num_pairs, uint32_t* out) {
  const __m512i pairs_first = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  const int64_t last_k = std::min(m.rows, k + 2 * num_pairs);
  for (int64_t group = 0; group < 4; ++group)
    for (int64_t p = 0; p < num_pairs; p += 32) {
      const int64_t first_k = k + 2 * p;
      __m512i x[16];
      for (int64_t i = 0; i < 16; ++i) {
        const int64_t column = c + 16 * group + i;
        const uint8_t* from = static_cast<const uint8_t*>(m.data) + column * m.col_stride + first_k;
        x[i] = column < m.cols ? load_some(from, last_k - first_k) : _mm512_setzero_si512();
      }
      transpose_16x16(x);  // x[j] now holds k = 4j .. 4j + 3 of 16 columns
      const int64_t rest = num_pairs - p;
      for (int64_t j = 0; j < 16 && 2 * j < rest; ++j) {
        __m512i even, odd;
        table.decode(_mm512_shuffle_epi8(x[j], pairs_first), even, odd);
        uint32_t* to = out + (p + 2 * j) * panel_cols + 16 * group;
        _mm512_storeu_si512(to, even);
        if (2 * j + 1 < rest) _mm512_storeu_si512(to + panel_cols, odd);
      }
    }
}

// out[pair][64 columns] of b, rows from k on; num_pairs covers them, padded with zeros.
void pack(const Matrix& m, int64_t c, int64_t k, int64_t num_pairs, uint32_t* out) {
  with_table(m.format, 1.0f, Float::bf16, [&](const auto& table) {
    if (m.col_stride == 1) pack_by_rows(table, m, c, k, num_pairs, out);
    else pack_by_columns(table, m, c, k, num_pairs, out);
  });
}

// num_rows rows of the product from `first` on, for the 64 columns from c on; `a` begins with these rows.
void multiply_panel(Pairs a, const Matrix& b, int64_t first, int64_t num_rows, int64_t c, const Output& out,
                    Unscale unscale) {
  static thread_local Scratch<uint32_t> packed_scratch;
  static thread_local Scratch<float> sums_scratch;
  uint32_t* packed = packed_scratch.reserve(block_k / 2 * panel_cols);
  float* sums = sums_scratch.reserve(num_rows * panel_cols);
  for (int64_t k = 0; k == 0 || k < b.rows; k += block_k) {
    const int64_t num_pairs = (std::min(block_k, b.rows - k) + 1) / 2;
    pack(b, c, k, num_pairs, packed);
    for (int64_t r = 0; r < num_rows; r += group_rows) {
      Pairs group = a;
      group.data += r / group_rows * a.group_stride + k / 2 * a.pair_stride;
      multiply_group(std::min(group_rows, num_rows - r), group, packed, num_pairs, sums + r * panel_cols, k == 0);
    }
  }
  for (int64_t r = 0; r < num_rows; ++r)
    for (int64_t i = c; i < std::min(b.cols, c + panel_cols); i += 16)
      finish(out, unscale, first + r, i, _mm512_load_ps(sums + r * panel_cols + i - c), first_lanes(b.cols - i));
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
    parallel_for(static_cast<int>((num_rows + run - 1) / run), num_threads, [&](int task) {
      const int64_t from = first + run * task, to = std::min(last, from + run);
      uint32_t* rows = out + run * task * num_pairs;
      if (a.is_bf16 && a.col_stride != 1) return gather_rows(a, from, to, num_pairs, rows);
      with_table(a.format, 1.0f, Float::bf16,
                 [&](const auto& table) { decode_rows(table, a, from, to, num_pairs, rows); });
    });
    return {out, group_rows * num_pairs, num_pairs, 1};
  }
  // Rows of a are columns of its transpose, whose columns are contiguous: pack panels of 64 rows, [panel][pair][64].
  const Matrix transposed = {a.data, false, a.format, a.cols, last, a.col_stride, a.row_stride};
  const int64_t num_panels = (num_rows + panel_cols - 1) / panel_cols;
  parallel_for(static_cast<int>(num_panels), num_threads, [&](int panel) {
    pack(transposed, first + panel * panel_cols, 0, num_pairs, out + panel * num_pairs * panel_cols);
  });
  return {out, num_pairs * panel_cols, 1, panel_cols};
}

// How many runs to cut the groups of rows of a panel into, so that the busiest thread has least to do. Each run packs
// the panel anew, which takes about a tenth of the time of a group.
int64_t runs_per_panel(int64_t num_groups, int64_t num_panels, int num_threads) {
  int64_t best = 1, least = INT64_MAX;
  for (int64_t num_runs = 1; num_runs <= num_groups && num_runs <= 4 * num_threads; ++num_runs) {
    const int64_t tasks_of_busiest = (num_panels * num_runs + num_threads - 1) / num_threads;
    const int64_t time = tasks_of_busiest * (10 * ((num_groups + num_runs - 1) / num_runs) + 1);
    if (time < least) best = num_runs, least = time;
  }
  return best;
}

}  // namespace

void gemm_avx512(const Matrix& a, const Matrix& b, const Output& out, Unscale unscale, int num_threads) {
  static thread_local Scratch<uint32_t> scratch;
  if (a.rows == 0 || b.cols == 0) return;
  const int64_t num_pairs = (a.cols + 1) / 2, num_panels = (b.cols + panel_cols - 1) / panel_cols;
  const int64_t wanted_rows = block_values / std::max<int64_t>(1, 2 * num_pairs) / group_rows * group_rows;
  const int64_t block_rows = std::max(group_rows, wanted_rows);
  const int64_t num_decoded = (std::min(a.rows, block_rows) + group_rows - 1) / group_rows * group_rows;
  uint32_t* decoded = scratch.reserve(num_decoded * num_pairs);
  for (int64_t first = 0; first < a.rows; first += block_rows) {
    const int64_t num_rows = std::min(block_rows, a.rows - first);
    const Pairs pairs = decode_block(a, first, first + num_rows, num_pairs, decoded, num_threads);
    const int64_t num_groups = (num_rows + group_rows - 1) / group_rows;
    const int64_t num_runs = runs_per_panel(num_groups, num_panels, num_threads);
    const int64_t run = (num_groups + num_runs - 1) / num_runs * group_rows;
    parallel_for(static_cast<int>(num_panels * num_runs), num_threads, [&](int task) {
      const int64_t begin = task % num_runs * run;
      if (begin >= num_rows) return;
      Pairs rows = pairs;
      rows.data += begin / group_rows * pairs.group_stride;
      multiply_panel(rows, b, first + begin, std::min(run, num_rows - begin), task / num_runs * panel_cols, out, unscale);
    });
  }
}

}  // namespace octoscale
