// The innermost block of products of many rows, for AVX-512: 6 rows x 64 columns of sums in 24 registers.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "common/lanes_avx512.h"
#include "product/pack_avx512.h"

namespace octoscale {
namespace {

constexpr int64_t tile_rows = 6;

// Decoded rows of a, in groups of 64: pair p of row r is
// data[r / 64 * group_stride + r % 64 * row_stride + p * pair_stride].
struct Pairs {
  const uint32_t* data;
  int64_t group_stride, row_stride, pair_stride;
};
constexpr int64_t group_rows = 64;

// sums[R][64] += R rows of pairs times the packed block. `fresh`: the sums begin at zero.
template <int R>
void multiply_tile(Pairs a, const uint32_t* b, int64_t num_pairs, float* sums, bool fresh) {
  __m512 sum[R][4];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 4; ++c)
      sum[r][c] = fresh ? _mm512_setzero_ps() : _mm512_load_ps(sums + r * panel_cols + 16 * c);
  const uint32_t* row[R];
  for (int r = 0; r < R; ++r) row[r] = a.data + r * a.row_stride;
  for (int64_t p = 0; p < num_pairs; ++p) {
    __m512i columns[4];
    for (int c = 0; c < 4; ++c) columns[c] = _mm512_load_si512(b + p * panel_cols + 16 * c);
    for (int r = 0; r < R; ++r) {
      const __m512i pair = _mm512_set1_epi32(static_cast<int>(row[r][p * a.pair_stride]));
      for (int c = 0; c < 4; ++c) sum[r][c] = dot(sum[r][c], pair, columns[c]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < 4; ++c) _mm512_store_ps(sums + r * panel_cols + 16 * c, sum[r][c]);
}

void multiply_rows(int64_t num_rows, Pairs a, const uint32_t* b, int64_t num_pairs, float* sums, bool fresh) {
  switch (num_rows) {
    case 1: return multiply_tile<1>(a, b, num_pairs, sums, fresh);
    case 2: return multiply_tile<2>(a, b, num_pairs, sums, fresh);
    case 3: return multiply_tile<3>(a, b, num_pairs, sums, fresh);
    case 4: return multiply_tile<4>(a, b, num_pairs, sums, fresh);
    case 5: return multiply_tile<5>(a, b, num_pairs, sums, fresh);
    default: return multiply_tile<6>(a, b, num_pairs, sums, fresh);
  }
}

// sums[row][64] += the rows of one group times the packed block.
void multiply_group(int64_t num_rows, Pairs a, const uint32_t* b, int64_t num_pairs, float* sums, bool fresh) {
  for (int64_t r = 0; r < num_rows; r += tile_rows) {
    const Pairs rows = {a.data + r * a.row_stride, 0, a.row_stride, a.pair_stride};
    multiply_rows(std::min(tile_rows, num_rows - r), rows, b, num_pairs, sums + r * panel_cols, fresh);
  }
}

}  // namespace
}  // namespace octoscale
