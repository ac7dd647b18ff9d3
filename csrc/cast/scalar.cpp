// The casts one value at a time, kept scalar: what the vector kernels are compared with.

#include "cast/each.h"
#include "cast/kernels.h"
#include "common/constants.h"
#include "common/scalar.h"

namespace octoscale {
namespace {

template <Float T>
void encode(const void* x, int64_t n, const Format& format, float scale, uint8_t* codes, Counts* counts) {
  for (int64_t i = 0; i < n; ++i) {
    const float value = load<T>(x, i), scaled = value * scale;
    const uint32_t magnitude = to_bits(value) & magnitude_bits;
    const bool finite = magnitude < infinity_bits;
    codes[i] = finite ? encode_finite(scaled, format) : format.nan_code();
    if (!counts) continue;
    counts->nonfinite += !finite;
    counts->saturated += finite && (to_bits(scaled) & magnitude_bits) > format.max_bits();
    counts->flushed += finite && magnitude && (codes[i] & 0x7F) == 0;
  }
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
};

}  // namespace octoscale
