// The loops of loops.h, and attention of many new tokens: that of avx512.cpp, in the tiles of AMX.

#include <immintrin.h>

#include "common/lanes_avx512.h"
#include "common/pieces.h"
#include "common/scratch.h"
#include "decoder/attend_avx512.h"
#include "decoder/loops.h"
#include "decoder/softmax_avx512.h"
#include "product/pack_avx512.h"
#include "product/tile_amx.h"

namespace octoscale {
namespace {

constexpr int64_t num_row_blocks = attend_rows / block_side;

int64_t num_blocks(int64_t n) { return ceil_div(n, block_side); }

// 32 positions and 32 dimensions are each a tile along k and two tiles across.
int64_t packed_size(int64_t length, int64_t head_dim) {
  return 2 * 2 * num_blocks(length) * num_blocks(head_dim) * tile_size;
}

// Keys as [16 keys][tile of 16 pairs of dimensions], then values as [16 dimensions][tile of 16 pairs of keys].
void pack_head(const uint16_t* keys, const uint16_t* values, int64_t length, int64_t head_dim, uint32_t* packed) {
  const int64_t num_key_blocks = num_blocks(length), num_dim_blocks = num_blocks(head_dim);
  for (int64_t t = 0; t < num_key_blocks * block_side; t += tile_side)
    for (int64_t i = 0; i < num_dim_blocks; ++i, packed += tile_size) {
      __m512i rows[tile_side];
      for (int64_t r = 0; r < tile_side; ++r) {
        const __mmask32 mask = t + r < length ? first_lanes<__mmask32>(head_dim - i * block_side) : 0;
        rows[r] = _mm512_maskz_loadu_epi16(mask, keys + (t + r) * head_dim + i * block_side);
      }
      store_transposed(rows, packed);
    }
  const auto load = [&](int64_t t, int64_t i) {
    const __mmask16 mask = t < length && i < head_dim ? 0xFFFF : 0;
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, values + t * head_dim + i));
  };
  for (int64_t i = 0; i < num_dim_blocks * block_side; i += tile_side)
    for (int64_t t = 0; t < num_key_blocks * block_side; t += 2, packed += tile_side)
      _mm512_store_si512(packed, _mm512_or_si512(load(t, i), _mm512_slli_epi32(load(t + 1, i), 16)));
}

// The scores of some queries: blocks [query / 32][key / 32], of which `num_keys` are in a row.
struct Scores {
  float* data;
  int64_t num_keys;

  float* block(int64_t r, int64_t t) const { return data + (r * num_keys + t) * block_size; }
  float* lanes_of(int64_t r, int64_t t) const {
    return row_of_block(block(r / block_side, t / block_side), r % block_side, t % block_side / tile_side);
  }
};

// Rows of bfloat16 as tiles of a: [row / 16][tile].
void pack_rows(const uint16_t* rows, int64_t row_stride, int64_t num_rows, int64_t head_dim, uint32_t* tiles) {
  const int64_t num_tiles = num_blocks(head_dim);
  for (int64_t r = 0; r < num_rows; ++r)
    for (int64_t i = 0; i < num_tiles; ++i)
      _mm512_store_si512(tiles + (r / tile_side * num_tiles + i) * tile_size + r % tile_side * tile_side,
                         load_halves(rows + r * row_stride + i * block_side, 1, head_dim - i * block_side));
}

void attend_block(const uint16_t* queries, int64_t row_stride, int64_t first, int64_t num_rows, const uint32_t* packed,
                  int64_t length, int64_t head_dim, float scale, uint16_t* out) {
  static thread_local Scratch<float> scores_scratch;
  static thread_local Scratch<uint32_t> rows_scratch, weights_scratch;
  const int64_t num_keys = num_blocks(first + num_rows), num_dims = num_blocks(head_dim);  // the keys that matter here
  const int64_t query_tiles = num_dims * tile_size, weight_tiles = num_keys * tile_size;   // of 16 rows
  const Scores scores = {scores_scratch.reserve(num_row_blocks * num_keys * block_size), num_keys};
  uint32_t* rows = rows_scratch.reserve(2 * num_row_blocks * query_tiles);
  uint32_t* weights = weights_scratch.reserve(2 * num_row_blocks * weight_tiles);
  TileRegisters registers;
  pack_rows(queries, row_stride, num_rows, head_dim, rows);
  for (int64_t r = 0; r * block_side < num_rows; ++r)
    for (int64_t t = 0; t < num_keys; ++t)
      multiply_block({rows + 2 * r * query_tiles, query_tiles}, {packed + 2 * t * query_tiles, query_tiles}, num_dims,
                     scores.block(r, t), true);
  float totals[attend_rows];
  for (int64_t r = 0; r < num_rows; ++r) {
    uint32_t* row = weights + r / tile_side * weight_tiles + r % tile_side * tile_side;
    const auto store = [&](int64_t t, __m512 some) {  // 32 in each tile
      store_weights(reinterpret_cast<uint16_t*>(row + t / block_side * tile_size) + t % block_side, some);
    };
    const auto scores_at = [&](int64_t t) { return scores.lanes_of(r, t); };
    totals[r] = weigh(first + r + 1, num_keys * block_side, scale, scores_at, store);
  }
  const uint32_t* values = packed + packed_size(length, head_dim) / 2;
  const int64_t value_tiles = num_blocks(length) * tile_size;
  alignas(64) float sums[block_size];
  for (int64_t r = 0; r < num_rows; r += block_side)
    for (int64_t i = 0; i < head_dim; i += block_side) {
      multiply_block({weights + r / tile_side * weight_tiles, weight_tiles},
                     {values + i / tile_side * value_tiles, value_tiles}, num_keys, sums, true);
      for (int64_t row = r; row < std::min(num_rows, r + block_side); ++row)
        for (int64_t d = i; d < std::min(head_dim, i + block_side); d += tile_side)
          store_means(row_of_block(sums, row - r, (d - i) / tile_side), totals[row], tile_side,
                      out + row * row_stride + d);
    }
}

}  // namespace

const DecoderKernels decoder_amx = {norm_loop, rotate_loop, attend, gated_loop, add_loop,
                                    packed_size, pack_head, attend_block};

}  // namespace octoscale
