// Packing of codes for products of many rows (AVX-512 and AMX): pairs of bfloat16 along k, for 64 columns at a time.
//
// Both multiply pairs along k. So an operand whose k is contiguous in memory (the weight of an output) has its pairs
// ready, but 16 columns must be gathered: a transposition. One whose columns are contiguous (both operands of a
// gradient of the weight) needs two rows interleaved. Both are done on bytes, before they are decoded.
//
// Scales that change along k go in here: into the tables of decoding where 64 columns share them, else into what was
// packed.
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "common/decode_avx512.h"
#include "common/lanes_avx512.h"
#include "product/inner_avx512.h"
#include "product/matmul.h"

namespace octoscale {
namespace {

constexpr int64_t panel_cols = 64;

// Where pairs go: pair p of column c to [c / 16 * group_stride + p * pair_stride + c % 16].
struct Packing {
  int64_t pair_stride, group_stride;
};

// Rows k and k + 1 of 64 columns -> 64 pairs in column order, 16 of them every `group_stride`.
template <class Table>
inline void pack_two_rows(const Table& table, __m512i row0, __m512i row1, int64_t group_stride, uint32_t* out) {
  // Unpacking works within 128 bits: the 4 dwords of each quarter are dealt out so that the result is in order.
  const __m512i deal = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  row0 = _mm512_permutexvar_epi32(deal, row0);
  row1 = _mm512_permutexvar_epi32(deal, row1);
  __m512i pairs[4];
  table.decode(_mm512_unpacklo_epi8(row0, row1), pairs[0], pairs[1]);
  table.decode(_mm512_unpackhi_epi8(row0, row1), pairs[2], pairs[3]);
  for (int i = 0; i < 4; ++i) _mm512_storeu_si512(out + i * group_stride, pairs[i]);
}

// Columns [c, c + 64) and rows [k, k + 2 * num_pairs) of a matrix whose columns are contiguous.
template <class Table>
void pack_by_rows(const Table& table, const Matrix& m, int64_t c, int64_t k, int64_t num_pairs, Packing packing,
                  uint32_t* out) {
  const int64_t num_cols = m.cols - c;
  const auto load_row = [&](const uint8_t* from, int64_t row) {
    return row < m.rows ? load_codes(from + row * m.row_stride, num_cols) : _mm512_setzero_si512();
  };
  const uint8_t* from = static_cast<const uint8_t*>(m.data) + c;
  for (int64_t p = 0; p < num_pairs; ++p) {
    const int64_t row = k + 2 * p;
    pack_two_rows(table, load_row(from, row), load_row(from, row + 1), packing.group_stride,
                  out + p * packing.pair_stride);
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
void pack_by_columns(const Table& table, const Matrix& m, int64_t c, int64_t k, int64_t num_pairs, Packing packing,
                     uint32_t* out) {
  const __m512i pairs_first =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  const int64_t last_k = std::min(m.rows, k + 2 * num_pairs);
  for (int64_t group = 0; group < 4; ++group)
    for (int64_t p = 0; p < num_pairs; p += 32) {
      const int64_t first_k = k + 2 * p;
      __m512i x[16];
      for (int64_t i = 0; i < 16; ++i) {
        const int64_t column = c + 16 * group + i;
        const uint8_t* from = static_cast<const uint8_t*>(m.data) + column * m.col_stride + first_k;
        x[i] = column < m.cols ? load_codes(from, last_k - first_k) : _mm512_setzero_si512();
        // The next 16: each is in a page of its own.
        _mm_prefetch(reinterpret_cast<const char*>(from + 16 * m.col_stride), _MM_HINT_T0);
      }
      transpose_16x16(x);  // x[j] now holds k = 4j .. 4j + 3 of 16 columns
      const int64_t rest = num_pairs - p;
      for (int64_t j = 0; j < 16 && 2 * j < rest; ++j) {
        __m512i even, odd;
        table.decode(_mm512_shuffle_epi8(x[j], pairs_first), even, odd);
        uint32_t* to = out + (p + 2 * j) * packing.pair_stride + group * packing.group_stride;
        _mm512_storeu_si512(to, even);
        if (2 * j + 1 < rest) _mm512_storeu_si512(to + packing.pair_stride, odd);
      }
    }
}

// What was packed, with the scales inside; k is a multiple of 32.
[[maybe_unused]] void scale_packed(const Matrix& m, int64_t c, int64_t k, int64_t num_pairs, Packing packing,
                                   uint32_t* out) {
  for (int64_t group = 0; group < 4 && c + 16 * group < m.cols; ++group)
    for (int64_t first = 0; first < num_pairs && k + 2 * first < m.rows; first += 16) {
      const __m512i by = binades(exponents_of(m, k + 2 * first, c + 16 * group));
      if (is_zero(by)) continue;
      for (int64_t p = first; p < std::min(num_pairs, first + 16); ++p) {
        uint32_t* pairs = out + p * packing.pair_stride + group * packing.group_stride;
        _mm512_storeu_si512(pairs, lowered(_mm512_loadu_si512(pairs), by));
      }
    }
}

template <class Table>
void pack_by(const Table& table, const Matrix& m, int64_t c, int64_t k, int64_t num_pairs, Packing packing,
             uint32_t* out) {
  if (m.col_stride == 1) pack_by_rows(table, m, c, k, num_pairs, packing, out);
  else pack_by_columns(table, m, c, k, num_pairs, packing, out);
}

// The same where all 64 columns share their scales inside: these are a part of the tables.
template <class Table>
void pack_runs(const Table& table, const Matrix& m, int64_t c, int64_t k, int64_t num_pairs, Packing packing,
               uint32_t* out) {
  const int64_t run = m.inner.row_group;
  for (int64_t p = 0; p < num_pairs;) {
    const int64_t first = k + 2 * p, n = std::min(num_pairs - p, (run - first % run) / 2);
    const auto lower = table.lowered_by(first < m.rows ? m.inner.at(first, c) : 0);
    pack_by(lower, m, c, first, n, packing, out + p * packing.pair_stride);
    p += n;
  }
}

// 64 columns of m from c on, rows from k on, as num_pairs pairs each; zeros stand for what m does not have.
[[maybe_unused]] void pack(const Matrix& m, int64_t c, int64_t k, int64_t num_pairs, Packing packing, uint32_t* out) {
  const int64_t last = std::min(m.cols, c + panel_cols) - 1, group = m.inner.col_group;
  with_table(m.format, 1.0f, Float::bf16, [&](const auto& table) {
    if (!m.inner.exponents) return pack_by(table, m, c, k, num_pairs, packing, out);
    if (c / group == last / group) return pack_runs(table, m, c, k, num_pairs, packing, out);
    pack_by(table, m, c, k, num_pairs, packing, out);
    scale_packed(m, c, k, num_pairs, packing, out);
  });
}

}  // namespace
}  // namespace octoscale
