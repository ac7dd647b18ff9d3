// One number at a time: float16, bfloat16 and FP8 by integer arithmetic on bits, whatever the CPU's rounding mode.
//
// Everything has internal linkage: a header that is compiled for several instruction sets must not let the linker pick
// the copy that an older CPU cannot run.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/dtypes.h"
#include "common/formats.h"

namespace octoscale {
namespace {

constexpr uint32_t sign_bit = 0x80000000u;
constexpr uint32_t magnitude_bits = 0x7FFFFFFFu;
constexpr uint32_t infinity_bits = 0x7F800000u;

[[maybe_unused]] inline uint32_t to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

[[maybe_unused]] inline float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// 2**exponent for an exponent in [-126, 127].
[[maybe_unused]] inline float power_of_two(int exponent) {
  return from_bits(static_cast<uint32_t>(exponent + 127) << 23);
}

// bits >> shift, to the nearest, ties to even, for shift in [1, 31].
[[maybe_unused]] inline uint32_t shift_and_round(uint32_t bits, int shift) {
  const uint32_t rest = bits & ((1u << shift) - 1), half = 1u << (shift - 1);
  const uint32_t whole = bits >> shift;
  return whole + (rest > half || (rest == half && (whole & 1)));
}

// A float32 of magnitude `bits` (finite, no sign) rounded to a smaller float with `mantissa_bits` and min_exponent; the
// result continues past the largest finite value.
[[maybe_unused]] inline uint32_t round_magnitude(uint32_t bits, int mantissa_bits, int min_exponent) {
  const int field = static_cast<int>(bits >> 23);
  const int exponent = field ? field - 127 : -126;
  const uint32_t mantissa = (bits & 0x7FFFFF) | (field ? 0x800000u : 0u);
  const int below = exponent < min_exponent ? min_exponent - exponent : 0;
  const int shift = 23 - mantissa_bits + below;
  const uint32_t steps = shift > 25 ? 0 : shift_and_round(mantissa, shift);
  return steps + (exponent > min_exponent ? static_cast<uint32_t>(exponent - min_exponent) << mantissa_bits : 0);
}

// Without branches, so that compilers turn loops of it into vectors. NaN stays NaN.
[[maybe_unused]] inline uint16_t float_to_bf16(float x) {
  const uint32_t bits = to_bits(x), rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  return static_cast<uint16_t>((bits & magnitude_bits) > infinity_bits ? (bits >> 16) | 0x40 : rounded);
}

[[maybe_unused]] inline uint16_t float_to_f16(float x) {
  const uint32_t bits = to_bits(x), magnitude = bits & magnitude_bits;
  const uint32_t sign = (bits & sign_bit) >> 16;
  if (magnitude > infinity_bits) return static_cast<uint16_t>(sign | 0x7E00);
  if (magnitude == infinity_bits) return static_cast<uint16_t>(sign | 0x7C00);
  const uint32_t rounded = round_magnitude(magnitude, 10, -14);
  return static_cast<uint16_t>(sign | (rounded < 0x7C00 ? rounded : 0x7C00));
}

[[maybe_unused]] inline float bf16_to_float(uint16_t x) { return from_bits(static_cast<uint32_t>(x) << 16); }

[[maybe_unused]] inline float f16_to_float(uint16_t x) {
  const uint32_t sign = static_cast<uint32_t>(x & 0x8000) << 16, field = (x >> 10) & 0x1F, mantissa = x & 0x3FF;
  if (field == 0x1F) return from_bits(sign | infinity_bits | (mantissa << 13));
  if (field) return from_bits(sign | ((field + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * power_of_two(-24);
  return from_bits(sign | to_bits(magnitude));
}

template <Float T>
inline float load(const void* x, int64_t i) {
  if constexpr (T == Float::f32) return static_cast<const float*>(x)[i];
  if constexpr (T == Float::bf16) return bf16_to_float(static_cast<const uint16_t*>(x)[i]);
  if constexpr (T == Float::f16) return f16_to_float(static_cast<const uint16_t*>(x)[i]);
}

template <Float T>
inline void store(void* out, int64_t i, float x) {
  if constexpr (T == Float::f32) static_cast<float*>(out)[i] = x;
  if constexpr (T == Float::bf16) static_cast<uint16_t*>(out)[i] = float_to_bf16(x);
  if constexpr (T == Float::f16) static_cast<uint16_t*>(out)[i] = float_to_f16(x);
}

// The code of x, finite: the golden table of numerics/reference.py without its non-finite row.
[[maybe_unused]] inline uint8_t encode_finite(float x, const Format& format) {
  const uint32_t bits = to_bits(x), magnitude = bits & magnitude_bits;
  const uint32_t code = magnitude >= format.max_bits()
                            ? format.max_code()
                            : round_magnitude(magnitude, format.mantissa_bits, format.min_exponent());
  const bool negative = (bits & sign_bit) && (code || !format.is_fnuz());
  return static_cast<uint8_t>(code | (negative ? 0x80 : 0));
}

// The value of a code: NaN, infinity and both zeros included. Exact.
[[maybe_unused]] inline float decode_one(uint8_t code, const Format& format) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24, magnitude = code & 0x7F;
  if (format.is_fnuz() ? code == 0x80 : magnitude > format.max_code()) {
    const bool infinite = format.special == Special::ieee && magnitude == format.max_code() + 1u;
    return from_bits(sign | infinity_bits | (infinite ? 0 : 0x400000));
  }
  const int mantissa_bits = format.mantissa_bits;
  const uint32_t field = magnitude >> mantissa_bits, mantissa = magnitude & ((1u << mantissa_bits) - 1);
  const uint32_t steps = mantissa | (field ? 1u << mantissa_bits : 0);
  const int exponent = format.min_exponent() - mantissa_bits + (field ? static_cast<int>(field) - 1 : 0);
  return from_bits(sign | to_bits(static_cast<float>(steps) * power_of_two(exponent)));
}

}  // namespace
}  // namespace octoscale
