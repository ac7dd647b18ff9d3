// The numbers by which Python names FP8 formats and dtypes.
#pragma once

#include <cstdint>

namespace octoscale {

enum class Fp8 : int { e4m3fn, e5m2, e4m3fnuz, e5m2fnuz };  // formats.h has their rows, in this order
enum class Float : int { f32, bf16, f16 };

constexpr int64_t size_of(Float type) { return type == Float::f32 ? 4 : 2; }  // in bytes

}  // namespace octoscale
