// Sums of products as tensor cores make them: numerics/accumulators.py explains the rule, and has it in slow motion.
#pragma once

#include "common/isa.h"
#include "product/matmul.h"

namespace octoscale {

struct Accumulation {
  int block;      // so many products are added at once, with the sum so far
  int fraction;   // bits that are kept below the largest exponent of a block
  int kept;       // bits of the sum below its own exponent
  int floor;      // the least exponent to which a block is aligned
  int joined;     // 0: the sum so far is one of a block's terms; else bits of a block's sum that are kept beside it
  int64_t chain;  // after so many products a new sum begins, and is added to the others in float32; 0: never
};

// out[a.rows, b.cols] in float32: the sums of codes, unscaled. NaN, or infinity, where an operand says so.
void accumulate(Isa isa, const Accumulation& rule, const Matrix& a, const Matrix& b, float* out, int num_threads);

void accumulate_scalar(const Accumulation& rule, const Matrix& a, const Matrix& b, float* out, int num_threads);
void accumulate_avx2(const Accumulation& rule, const Matrix& a, const Matrix& b, float* out, int num_threads);
void accumulate_avx512(const Accumulation& rule, const Matrix& a, const Matrix& b, float* out, int num_threads);

}  // namespace octoscale
