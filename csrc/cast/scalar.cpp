// The casts one value at a time, kept scalar: what the vector kernels are compared with.

#include <algorithm>

#include "cast/each.h"
#include "cast/kernels.h"
#include "common/constants.h"
#include "common/scalar.h"

namespace octoscale {
namespace {

uint8_t encode_one(float value, float scale, const Format& format, Counts* counts) {
  const float scaled = value * scale;
  const uint32_t magnitude = to_bits(value) & magnitude_bits;
  const bool finite = magnitude < infinity_bits;
  const uint8_t code = finite ? encode_finite(scaled, format) : format.nan_code();
  if (counts) {
    counts->nonfinite += !finite;
    counts->saturated += finite && (to_bits(scaled) & magnitude_bits) > format.max_bits();
    counts->flushed += finite && magnitude && (code & 0x7F) == 0;
  }
  return code;
}

template <Float T>
void encode(const void* x, int64_t n, const Format& format, float scale, uint8_t* codes, Counts* counts) {
  for (int64_t i = 0; i < n; ++i) codes[i] = encode_one(load<T>(x, i), scale, format, counts);
}

// body(row, column, offset of the value in x), for each value of a tile.
template <class Body>
void for_each_value(const Tile& tile, Body&& body) {
  for (int64_t r = 0; r < tile.num_rows; ++r)
    for (int64_t c = 0; c < tile.num_cols; ++c) body(r, c, r * tile.row_stride + c);
}

template <Float T>
void decode(const uint8_t* codes, int64_t n, const Format& format, float scale, void* out) {
  for (int64_t i = 0; i < n; ++i) store<T>(out, i, decode_one(codes[i], format) * scale);
}

}  // namespace

const CastKernels cast_scalar = {
    [](const void* x, Float type, int64_t n, int64_t* exponents) {
      uint32_t largest = 0;
      with_float(type, [&](auto T) { largest = observe_each<T.value>(x, n, exponents); });
      return largest;
    },
    [](const void* x, Float type, int64_t n, Fp8 format, int scale_bias, bool, uint8_t* codes, Counts* counts) {
      with_float(type, [&](auto T) { encode<T.value>(x, n, row(format), power_of_two(scale_bias), codes, counts); });
    },
    [](const uint8_t* codes, int64_t n, Fp8 format, int scale_bias, void* out, Float type) {
      with_float(type, [&](auto T) { decode<T.value>(codes, n, row(format), power_of_two(-scale_bias), out); });
    },
    [](const Tile& tile, uint32_t* amax_bits) {
      with_float(tile.type, [&](auto T) {
        for_each_value(tile, [&](int64_t, int64_t c, int64_t i) {
          uint32_t& largest = amax_bits[c / tile.group];
          largest = std::max(largest, to_bits(load<T.value>(tile.x, i)) & magnitude_bits);
        });
      });
    },
    [](const Tile& tile, Fp8 format, const float* scales, bool, int64_t, uint8_t* codes, int64_t code_stride,
       Counts* counts) {
      with_float(tile.type, [&](auto T) {
        for_each_value(tile, [&](int64_t r, int64_t c, int64_t i) {
          const float value = load<T.value>(tile.x, i);
          codes[r * code_stride + c] = encode_one(value, scales[c / tile.group], row(format), counts);
        });
      });
    },
};

}  // namespace octoscale
