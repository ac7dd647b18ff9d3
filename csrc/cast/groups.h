// Casts with a scale for each group of values, in one visit to memory: a group that was observed is in a cache when its
// scale is known, and the next ones are fetched while it is encoded.
#pragma once

#include "cast/quantize.h"
#include "cast/rule.h"

namespace octoscale {

// How many rows and columns share a scale; smaller groups stand at the ends. One of both is 1, or rows is not all.
struct GroupSize {
  int64_t rows, cols;
};

struct GroupEncoding {
  Fp8 format;
  AmaxRule rule;
  float* amaxes;         // [groups along the rows, groups along the columns], and so are
  int32_t* scale_biases;
  uint8_t* codes;        // [num_rows, num_cols], contiguous
  bool counts;
};

// Fills amaxes, scale_biases by the rule, and codes.
Counts cast_groups(Isa isa, const void* x, Float type, Rows rows, GroupSize size, const GroupEncoding& encoding,
                   int num_threads);

// out[i] = codes[i] * 2**-(the scale_bias of its group); codes in rows, scale_biases as above, out contiguous.
void decode_groups(Isa isa, const uint8_t* codes, Rows rows, GroupSize size, Fp8 format, const int32_t* scale_biases,
                   void* out, Float type, int num_threads);

}  // namespace octoscale
