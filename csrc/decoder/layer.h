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

// How an input is cast: not at all, by a constant scale, by its own amax less `value` binades of headroom, or so by
// that of each run of 128 values, or of each token.
struct InputRule {
  enum class Kind : int { none, constant, amax, amax_of_runs, amax_of_rows } kind;
  Fp8 format;
  int value;      // scale_bias, or the margin
  float divisor;  // of the input before the cast; 1: none
};

inline bool operator==(const InputRule& a, const InputRule& b) {
  return a.kind == b.kind && a.format == b.format && a.value == b.value && a.divisor == b.divisor;
}

// The scales of a weight, 2**-bias * factor: one, or one for each output or each block of 128 x 128, rows contiguous.
struct WeightScales {
  enum class Reach : int { tensor, row, block } reach;
  int bias;               // of a tensor
  float factor;           // of all, beside their own: the input's is in it
  const int32_t* biases;  // of rows and blocks
  const float* factors;   // of rows and blocks; null: 1
};

// A linear layer without gradients: codes [num_out, num_in], rows contiguous.
struct Linear {
  const uint8_t* codes;
  Fp8 format;
  WeightScales scales;
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

// A step was done; or it has to go another way, for scales lie too far apart along a sum. Else the number of the first
// linear layer whose input holds infinity or NaN; then the output is that of NaN.
constexpr int done = -1, refused = -2;

// x, out: [num_rows, hidden], bfloat16. cosines, sines: [num_rows, head_dim], bfloat16. More than one row: only for an
// empty cache, no factors of blocks, and where `serves_rows`. Returns one of the above.
int step(Isa isa, const DecoderLayer& layer, const uint16_t* x, int64_t num_rows, const uint16_t* cosines,
         const uint16_t* sines, const Cached& cache, uint16_t* out, int num_threads);
bool serves_rows(Isa isa);

// One token through a stack of layers: caches[i] is that of layers[i]. As `step`, but that linear layers are counted
// through all layers; what comes after a layer that failed is not computed.
int step_through(Isa isa, const DecoderLayer* const* layers, const Cached* caches, int num_layers, const uint16_t* x,
                 const uint16_t* cosines, const uint16_t* sines, uint16_t* out, int num_threads);

// Rows of n values, a multiple of 16.
void rms_norm(Isa isa, const uint16_t* x, int64_t num_rows, int64_t n, Norm norm, uint16_t* out);

}  // namespace octoscale
