// From a number that is known at run time to a compile-time constant: the body is compiled once for each value.
//
//     with_format(format, [&](auto F) { kernel<F.value>(...); });
#pragma once

#include <type_traits>

#include "common/dtypes.h"

namespace octoscale {
namespace {

template <class Body>
inline void with_format(Fp8 format, Body&& body) {
  switch (format) {
    case Fp8::e4m3fn: return body(std::integral_constant<Fp8, Fp8::e4m3fn>{});
    case Fp8::e5m2: return body(std::integral_constant<Fp8, Fp8::e5m2>{});
    case Fp8::e4m3fnuz: return body(std::integral_constant<Fp8, Fp8::e4m3fnuz>{});
    case Fp8::e5m2fnuz: return body(std::integral_constant<Fp8, Fp8::e5m2fnuz>{});
  }
}

template <class Body>
inline void with_float(Float type, Body&& body) {
  switch (type) {
    case Float::f32: return body(std::integral_constant<Float, Float::f32>{});
    case Float::bf16: return body(std::integral_constant<Float, Float::bf16>{});
    case Float::f16: return body(std::integral_constant<Float, Float::f16>{});
  }
}

}  // namespace
}  // namespace octoscale
