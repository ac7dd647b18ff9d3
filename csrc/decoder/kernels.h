// What an instruction set offers to a decoder layer: the loops between the products, each the work of one thread.
//
// Values are bfloat16; lengths are multiples of 16. Each file that is compiled for an instruction set fills one struct.
#pragma once

#include <cstdint>

namespace octoscale {

struct Norm {
  const uint16_t* weight;  // bfloat16
  float epsilon;
};

constexpr int64_t attend_rows = 64;  // queries that share a visit to keys and values, if there are that many

struct DecoderKernels {
  // out = x / sqrt(mean(x**2) + epsilon), rounded, times weight.
  void (*norm)(const uint16_t* x, Norm norm, int64_t n, uint16_t* out);
  // Turn one head in place.
  void (*rotate)(uint16_t* head, const uint16_t* cosines, const uint16_t* sines, int64_t head_dim);
  // softmax(queries @ keys^T * scale) @ values, for the heads that share keys and values. scores: room for
  // [num_queries, length].
  void (*attend)(const uint16_t* queries, const uint16_t* keys, const uint16_t* values, int64_t num_queries,
                 int64_t head_dim, int64_t length, float scale, float* scores, uint16_t* out);
  // out = silu(gate) * up.
  void (*gated)(const uint16_t* gate, const uint16_t* up, int64_t n, uint16_t* out);
  // x += y.
  void (*add)(uint16_t* x, const uint16_t* y, int64_t n);

  // Attention of many new tokens, the first of their sequence; null where there is none. How many numbers the keys and
  // values of a head take when packed; pack them; then queries [first, first + num_rows), at most attend_rows, of one
  // head: a query sees the positions up to its own.
  int64_t (*packed_size)(int64_t length, int64_t head_dim);
  void (*pack_head)(const uint16_t* keys, const uint16_t* values, int64_t length, int64_t head_dim, uint32_t* packed);
  void (*attend_block)(const uint16_t* queries, int64_t row_stride, int64_t first, int64_t num_rows,
                       const uint32_t* packed, int64_t length, int64_t head_dim, float scale, uint16_t* out);
};

extern const DecoderKernels decoder_scalar;
extern const DecoderKernels decoder_avx2;
extern const DecoderKernels decoder_avx512;
extern const DecoderKernels decoder_amx;

}  // namespace octoscale
