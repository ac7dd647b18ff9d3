// The scale of a product, taken back.
#pragma once

#include <algorithm>

#include "common/scalar.h"

namespace octoscale {

// 2**-scale_bias as two factors, for it may leave float32's range. The smaller goes first, so only the last rounds.
struct Unscale {
  float first, last;
};

namespace {

[[maybe_unused]] inline Unscale unscale_by(int scale_bias) {
  const int last = std::clamp(-scale_bias, -126, 126);
  return {power_of_two(-scale_bias - last), power_of_two(last)};
}

}  // namespace
}  // namespace octoscale
