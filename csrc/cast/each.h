// What a cast observes, value by value: the oracle of the vectors, and what is left over when they are done.
#pragma once

#include "common/scalar.h"

namespace octoscale {
namespace {

// The largest |x| as the bits of a float32; see CastKernels::observe.
template <Float T>
inline uint32_t observe_each(const void* x, int64_t n, int64_t* exponents) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t magnitude = to_bits(load<T>(x, i)) & magnitude_bits;
    if (magnitude > largest) largest = magnitude;
    if (exponents) ++exponents[magnitude >> 23];
  }
  return largest;
}

}  // namespace
}  // namespace octoscale
