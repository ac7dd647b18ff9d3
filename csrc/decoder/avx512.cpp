// The loops of loops.h, compiled for AVX-512; and attention of many new tokens, as products of matrices.
//
// For 64 queries of a head: scores = queries @ keys^T; e**(score - largest) of the positions up to the query's own, as
// bfloat16; their product with the values, over their sum. Keys and values of a head are packed once for all of them.

#include <immintrin.h>

#include <cstring>

#include "common/lanes_avx512.h"
#include "common/pieces.h"
#include "common/scratch.h"
#include "decoder/attend_avx512.h"
#include "decoder/loops.h"
#include "decoder/softmax_avx512.h"
#include "product/tile_avx512.h"

namespace octoscale {
namespace {

constexpr int64_t width = panel_cols;  // keys in a block, and dimensions in a block of values

int64_t packed_size(int64_t length, int64_t head_dim) {
  return round_up(length, width) * (head_dim / 2) + round_up(head_dim, width) * (round_up(length, width) / 2);
}

uint32_t pair_of(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

// Keys as [block][pair of dimensions][64 keys], then values as [block of dimensions][pair of keys][64 dimensions].
void pack_head(const uint16_t* keys, const uint16_t* values, int64_t length, int64_t head_dim, uint32_t* packed) {
  std::memset(packed, 0, static_cast<size_t>(packed_size(length, head_dim)) * sizeof(uint32_t));
  for (int64_t t = 0; t < length; ++t)
    for (int64_t p = 0; p < head_dim / 2; ++p)
      std::memcpy(packed + (t / width * (head_dim / 2) + p) * width + t % width, keys + t * head_dim + 2 * p, 4);
  packed += round_up(length, width) * (head_dim / 2);
  const int64_t num_pairs = round_up(length, width) / 2;
  for (int64_t t = 0; t < length; t += 2)
    for (int64_t i = 0; i < head_dim; ++i) {
      const uint16_t next = t + 1 < length ? values[(t + 1) * head_dim + i] : 0;
      packed[(i / width * num_pairs + t / 2) * width + i % width] = pair_of(values[t * head_dim + i], next);
    }
}

void attend_block(const uint16_t* queries, int64_t row_stride, int64_t first, int64_t num_rows, const uint32_t* packed,
                  int64_t length, int64_t head_dim, float scale, uint16_t* out) {
  static thread_local Scratch<float> scores_scratch;
  static thread_local Scratch<uint16_t> weights_scratch;
  alignas(64) float sums[group_rows * width], totals[group_rows];
  const int64_t end = round_up(first + num_rows, width);  // of the keys that matter here
  float* scores = scores_scratch.reserve(group_rows * end);
  uint16_t* weights = weights_scratch.reserve(group_rows * end);
  const Pairs rows = {reinterpret_cast<const uint32_t*>(queries), 0, row_stride / 2, 1};
  for (int64_t t = 0; t < end; t += width) {
    multiply_group(num_rows, rows, packed + t * (head_dim / 2), head_dim / 2, sums, true);
    for (int64_t r = 0; r < num_rows; ++r) std::copy_n(sums + r * width, width, scores + r * end + t);
  }
  for (int64_t r = 0; r < num_rows; ++r)
    totals[r] = weigh(first + r + 1, end, scale, [&](int64_t t) { return scores + r * end + t; },
                      [&](int64_t t, __m512 some) { store_weights(weights + r * end + t, some); });
  const uint32_t* values = packed + round_up(length, width) * (head_dim / 2);
  const Pairs weight_rows = {reinterpret_cast<const uint32_t*>(weights), 0, end / 2, 1};
  for (int64_t i = 0; i < head_dim; i += width) {
    const uint32_t* block = values + i * (round_up(length, width) / 2);
    multiply_group(num_rows, weight_rows, block, end / 2, sums, true);
    for (int64_t r = 0; r < num_rows; ++r)
      store_means(sums + r * width, totals[r], std::min(width, head_dim - i), out + r * row_stride + i);
  }
}

}  // namespace

const DecoderKernels decoder_avx512 = {norm_loop, rotate_loop, attend, gated_loop, add_loop,
                                       packed_size, pack_head, attend_block};

}  // namespace octoscale
