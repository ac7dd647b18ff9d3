// Casts of whole tensors: cut into runs for the threads and, within a run, into blocks that stay in the first cache.
#pragma once

#include "cast/kernels.h"
#include "common/isa.h"

namespace octoscale {

// A matrix whose rows are contiguous: row r begins row_stride elements after row r - 1. A flat tensor has one row.
struct Rows {
  int64_t num_rows;
  int64_t num_cols;
  int64_t row_stride;
};

struct Observed {
  uint32_t amax_bits = 0;  // of a float32; 0 for an empty tensor
  int64_t exponents[num_exponent_bins] = {};
};

// amax, and the histogram of exponents if asked for.
Observed observe(Isa isa, const void* x, Float type, Rows rows, bool exponents, int num_threads);

struct Encoding {
  Fp8 format;
  int scale_bias;
  uint8_t* codes;       // [num_rows, num_cols], contiguous
  uint16_t* values;     // the codes' values as bfloat16, without the scale, of the same shape; or null
  bool counts;
};

// The codes of a tensor whose amax is known.
Counts encode(Isa isa, const void* x, Float type, Rows rows, uint32_t amax_bits,
              const Encoding& encoding, int num_threads);

// Both in one visit to memory, for a scale that does not depend on amax.
Counts observe_and_encode(Isa isa, const void* x, Float type, Rows rows, bool exponents,
                          const Encoding& encoding, int num_threads, Observed* observed);

// out[i] = codes[i] * 2**-scale_bias; codes in rows, out contiguous.
void decode(Isa isa, const uint8_t* codes, Rows rows, Fp8 format, int scale_bias, void* out,
            Float type, int num_threads);

}  // namespace octoscale
