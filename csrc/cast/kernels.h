// What an instruction set offers to casts: one table of functions, each the work of one thread on plain memory.
//
// quantize.cpp chooses the table, cuts tensors into pieces and calls these. Each file that is compiled for an
// instruction set fills one struct. Nothing here allocates, throws or knows of Python.
#pragma once

#include <cstdint>

#include "common/dtypes.h"
#include "common/isa.h"

namespace octoscale {

constexpr int num_exponent_bins = 256;  // one for each value of float32's exponent field

struct Counts {
  int64_t saturated = 0;
  int64_t flushed = 0;
  int64_t nonfinite = 0;
};

namespace {

[[maybe_unused]] inline void add(Counts* sum, const Counts& more) {
  sum->saturated += more.saturated;
  sum->flushed += more.flushed;
  sum->nonfinite += more.nonfinite;
}

}  // namespace

// Rows of values, `row_stride` apart, of which each `group` columns share a scale, in all rows; the last are fewer.
struct Tile {
  const void* x;
  Float type;
  int64_t num_rows, num_cols, row_stride;
  int64_t group;
};

struct CastKernels {
  // The largest |x| as the bits of a float32, which order like the values: NaN above infinity above the rest.
  // Adds to exponents[num_exponent_bins] how many values have each exponent field, unless it is null.
  uint32_t (*observe)(const void* x, Float type, int64_t n, int64_t* exponents);

  // codes[i] = encode(x[i] * 2**scale_bias). `tame`: all values are known to be finite and none saturates.
  // Adds to counts, unless it is null.
  void (*encode)(const void* x, Float type, int64_t n, Fp8 format, int scale_bias, bool tame, uint8_t* codes,
                 Counts* counts);

  // out[i] = decode(codes[i]) * 2**-scale_bias, rounded once to `type`.
  void (*decode)(const uint8_t* codes, int64_t n, Fp8 format, int scale_bias, void* out, Float type);

  // amax_bits[g] = the larger one of itself and the largest |x| of group g.
  void (*observe_groups)(const Tile& tile, uint32_t* amax_bits);

  // The codes of x * scales[g], each row of them `code_stride` after the one before. `tame` as above, of all groups.
  // Reads into the cache, meanwhile, what lies `ahead` bytes behind each value. Adds to counts, unless it is null.
  void (*encode_groups)(const Tile& tile, Fp8 format, const float* scales, bool tame, int64_t ahead, uint8_t* codes,
                        int64_t code_stride, Counts* counts);
};

// The table of an instruction set.
const CastKernels& cast_kernels(Isa isa);

extern const CastKernels cast_scalar;
extern const CastKernels cast_avx2;
extern const CastKernels cast_avx512;

}  // namespace octoscale
