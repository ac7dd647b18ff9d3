// Casts, for Python.

#include <algorithm>

#include "bindings/bindings.h"
#include "cast/groups.h"
#include "cast/quantize.h"
#include "cast/rule.h"
#include "common/scalar.h"

namespace octoscale {
namespace {

// [codes' values as bfloat16 or 0] and so on: what the three entry points of a cast share.
Encoding encoding(int format, int scale_bias, uintptr_t codes, uintptr_t values, bool counts) {
  return {static_cast<Fp8>(format), scale_bias, pointer<uint8_t>(codes), pointer<uint16_t>(values), counts};
}

void write_exponents(uintptr_t exponents, const Observed& observed) {
  if (exponents) std::copy_n(observed.exponents, num_exponent_bins, pointer<int64_t>(exponents));
}

void write_counts(uintptr_t address, const Counts& counts) {
  int64_t* out = pointer<int64_t>(address);
  if (!out) return;
  out[0] = counts.saturated;
  out[1] = counts.flushed;
  out[2] = counts.nonfinite;
}

float observe_tensor(int isa, uintptr_t x, int type, int64_t num_rows, int64_t num_cols, int64_t row_stride,
                     uintptr_t exponents, int num_threads) {
  const Rows rows = {num_rows, num_cols, row_stride};
  const Observed seen = observe(static_cast<Isa>(isa), pointer<const void>(x), static_cast<Float>(type), rows,
                                exponents != 0, num_threads);
  write_exponents(exponents, seen);
  return from_bits(seen.amax_bits);
}

void encode_tensor(int isa, uintptr_t x, int type, int64_t num_rows, int64_t num_cols, int64_t row_stride, float amax,
                   int format, int scale_bias, uintptr_t codes, uintptr_t values, uintptr_t counts, int num_threads) {
  const Rows rows = {num_rows, num_cols, row_stride};
  const Counts seen = encode(static_cast<Isa>(isa), pointer<const void>(x), static_cast<Float>(type), rows,
                             to_bits(amax) & magnitude_bits, encoding(format, scale_bias, codes, values, counts != 0),
                             num_threads);
  write_counts(counts, seen);
}

float cast_tensor(int isa, uintptr_t x, int type, int64_t num_rows, int64_t num_cols, int64_t row_stride, int format,
                  int scale_bias, uintptr_t codes, uintptr_t values, uintptr_t counts, uintptr_t exponents,
                  int num_threads) {
  const Rows rows = {num_rows, num_cols, row_stride};
  Observed observed;
  const Counts seen = observe_and_encode(
      static_cast<Isa>(isa), pointer<const void>(x), static_cast<Float>(type), rows, exponents != 0,
      encoding(format, scale_bias, codes, values, counts != 0), num_threads, &observed);
  write_exponents(exponents, observed);
  write_counts(counts, seen);
  return from_bits(observed.amax_bits);
}

void decode_tensor(int isa, uintptr_t codes, int format, int64_t num_rows, int64_t num_cols, int64_t row_stride,
                   int scale_bias, uintptr_t out, int type, int num_threads) {
  const Rows rows = {num_rows, num_cols, row_stride};
  decode(static_cast<Isa>(isa), pointer<const uint8_t>(codes), rows, static_cast<Fp8>(format), scale_bias,
         pointer<void>(out), static_cast<Float>(type), num_threads);
}

void cast_groups_of_tensor(int isa, uintptr_t x, int type, int64_t num_rows, int64_t num_cols, int64_t row_stride,
                           int64_t group_rows, int64_t group_cols, int format, int margin, bool down,
                           uintptr_t amaxes, uintptr_t scale_biases, uintptr_t codes, uintptr_t counts,
                           int num_threads) {
  const Rows rows = {num_rows, num_cols, row_stride};
  const GroupEncoding encoding = {static_cast<Fp8>(format), {margin, down}, pointer<float>(amaxes),
                                  pointer<int32_t>(scale_biases), pointer<uint8_t>(codes), counts != 0};
  const Counts seen = cast_groups(static_cast<Isa>(isa), pointer<const void>(x), static_cast<Float>(type), rows,
                                  {group_rows, group_cols}, encoding, num_threads);
  write_counts(counts, seen);
}

void decode_groups_of_tensor(int isa, uintptr_t codes, int format, int64_t num_rows, int64_t num_cols,
                             int64_t row_stride, int64_t group_rows, int64_t group_cols, uintptr_t scale_biases,
                             uintptr_t out, int type, int num_threads) {
  const Rows rows = {num_rows, num_cols, row_stride};
  decode_groups(static_cast<Isa>(isa), pointer<const uint8_t>(codes), rows, {group_rows, group_cols},
                static_cast<Fp8>(format), pointer<const int32_t>(scale_biases), pointer<void>(out),
                static_cast<Float>(type), num_threads);
}

int scale_bias_of(float amax, int format, int margin, bool down) {
  return amax_to_scale_bias(to_bits(amax), row(static_cast<Fp8>(format)), {margin, down});
}

}  // namespace

void bind_casts(nb::module_& module) {
  module.def("observe", &observe_tensor, release_gil());
  module.def("encode", &encode_tensor, release_gil());
  module.def("cast", &cast_tensor, release_gil());
  module.def("cast_groups", &cast_groups_of_tensor, release_gil());
  module.def("decode", &decode_tensor, release_gil());
  module.def("decode_groups", &decode_groups_of_tensor, release_gil());
  module.def("scale_bias", &scale_bias_of);
}

}  // namespace octoscale
