// The FP8 formats as rows of data: the C++ twin of numerics/formats.py, which explains them. A test compares the two.
#pragma once

#include <cstdint>

#include "common/dtypes.h"

namespace octoscale {
namespace {

enum class Special { ieee, fn, fnuz };

struct Format {
  const char* name;
  int exponent_bits;
  int mantissa_bits;
  int bias;
  Special special;

  constexpr int min_exponent() const { return 1 - bias; }
  constexpr bool is_fnuz() const { return special == Special::fnuz; }
  constexpr uint8_t nan_code() const { return is_fnuz() ? 0x80 : 0x7F; }
  constexpr uint8_t max_code() const {
    return is_fnuz() ? 0x7F : special == Special::fn ? 0x7E : static_cast<uint8_t>(0x7F - (1 << mantissa_bits));
  }
  // The largest finite value as the bits of a float32.
  constexpr uint32_t max_bits() const {
    return (static_cast<uint32_t>(127 - bias) << 23) + (static_cast<uint32_t>(max_code()) << (23 - mantissa_bits));
  }
};

constexpr Format formats[] = {
    {"e4m3fn", 4, 3, 7, Special::fn},
    {"e5m2", 5, 2, 15, Special::ieee},
    {"e4m3fnuz", 4, 3, 8, Special::fnuz},
    {"e5m2fnuz", 5, 2, 16, Special::fnuz},
};
constexpr int num_formats = 4;

constexpr const Format& row(Fp8 format) { return formats[static_cast<int>(format)]; }

}  // namespace
}  // namespace octoscale
