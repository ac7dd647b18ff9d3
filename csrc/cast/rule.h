// From an amax to its scale: the twin of numerics/scaling.py, by integer arithmetic on the bits of a float32.
#pragma once

#include <algorithm>

#include "common/formats.h"
#include "common/scalar.h"

namespace octoscale {

// FP8-AMAX. down: of amax and the format's largest value only the powers of two below count, as in OCP's MX.
struct AmaxRule {
  int margin;
  bool down;
};

namespace {

// The largest b with amax * 2**b <= the format's largest value, less margin, in [-126, 126]; 0 of 0, infinity and NaN.
[[maybe_unused]] inline int amax_to_scale_bias(uint32_t amax_bits, const Format& format, AmaxRule rule) {
  if (amax_bits == 0 || amax_bits >= infinity_bits) return 0;
  constexpr uint32_t implicit = 1u << 23, mantissa = implicit - 1;
  int field = std::max(1, static_cast<int>(amax_bits >> 23));
  uint32_t significand = amax_bits < implicit ? amax_bits : (amax_bits & mantissa) | implicit;
  for (; significand < implicit; --field) significand <<= 1;  // float32's subnormals
  const bool is_above = !rule.down && (significand & mantissa) > (format.max_bits() & mantissa);
  return std::clamp(static_cast<int>(format.max_bits() >> 23) - field - is_above - rule.margin, -126, 126);
}

}  // namespace
}  // namespace octoscale
