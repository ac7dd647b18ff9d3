// New tokens through one decoder layer of the Llama family, as one call: what is left to do is reading the weights if
// it is one token, and products of matrices if it is many.
//
//     x + o(attention(rope(q(n)), rope(k(n)), v(n)))            n = norm1(x)
//     x + down(silu(gate(n)) * up(n))                           n = norm2(x)
//
// Values between two operations are rounded to bfloat16 wherever the model in torch rounds them; sums are in float32.
#pragma once

#include "common/isa.h"
#include "decoder/kernels.h"
#include "product/matmul.h"

namespace octoscale {

// How an input is cast: not at all, by a constant scale, or by its own amax less `value` binades of headroom.
struct InputRule {
  enum class Kind : int { none, constant, amax } kind;
  Fp8 format;
  int value;  // scale_bias, or the margin
};

inline bool operator==(const InputRule& a, const InputRule& b) {
  return a.kind == b.kind && a.format == b.format && a.value == b.value;
}

// A linear layer without gradients: codes [num_out, num_in], rows contiguous.
struct Linear {
  const uint8_t* codes;
  Fp8 format;
  int scale_bias;
  int64_t num_in, num_out;
  InputRule rule;
};

struct DecoderLayer {
  int64_t num_heads, num_kv_heads, head_dim;
  float attention_scale;
  Norm norm1, norm2;
  Linear q, k, v, o, gate, up, down;

  static constexpr int num_linears = 7;  // in this order
};

// Keys and values of one layer: position t of head h begins at [h * head_stride + t * head_dim], bfloat16.
struct Cached {
  uint16_t *keys, *values;
  int64_t head_stride;
  int64_t length;  // positions there are; the tokens become the next
};

// x, out: [num_rows, hidden], bfloat16. cosines, sines: [num_rows, head_dim], bfloat16. More than one row: only for an
// empty cache, and where `serves_rows`. The number of the first linear layer whose input holds infinity or NaN, or -1;
// then the output is that of NaN.
int step(Isa isa, const DecoderLayer& layer, const uint16_t* x, int64_t num_rows, const uint16_t* cosines,
         const uint16_t* sines, const Cached& cache, uint16_t* out, int num_threads);
bool serves_rows(Isa isa);

// One token through a stack of layers: caches[i] is that of layers[i]. The number of the first linear layer whose input
// holds infinity or NaN, counted through all layers, or -1; what comes after it is not computed.
int step_through(Isa isa, const DecoderLayer* const* layers, const Cached* caches, int num_layers, const uint16_t* x,
                 const uint16_t* cosines, const uint16_t* sines, uint16_t* out, int num_threads);

// Rows of n values, a multiple of 16.
void rms_norm(Isa isa, const uint16_t* x, int64_t num_rows, int64_t n, Norm norm, uint16_t* out);

}  // namespace octoscale
