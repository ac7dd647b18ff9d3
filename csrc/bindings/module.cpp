// The border to Python: addresses and numbers in, numbers out. kernels/native.py has checked all of them.
//
// Tensors cross as addresses because nanobind and torch share no header, and because nothing is cheaper. The global
// interpreter lock is released while a kernel runs.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "cast/quantize.h"
#include "common/formats.h"
#include "common/isa.h"
#include "common/pool.h"
#include "common/scalar.h"
#include "decoder/layer.h"
#include "product/matmul.h"

namespace nb = nanobind;
using namespace octoscale;

namespace {

const void* input(uintptr_t address) { return reinterpret_cast<const void*>(address); }

template <class T>
T* output(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// [codes' values as bfloat16 or 0] and so on: what the three entry points of a cast share.
Encoding encoding(int format, int scale_bias, uintptr_t codes, uintptr_t values, bool counts) {
  return {static_cast<Fp8>(format), scale_bias, output<uint8_t>(codes), output<uint16_t>(values), counts};
}

void write_exponents(uintptr_t exponents, const Observed& observed) {
  if (exponents) std::copy_n(observed.exponents, num_exponent_bins, output<int64_t>(exponents));
}

void write_counts(uintptr_t address, const Counts& counts) {
  int64_t* out = output<int64_t>(address);
  if (!out) return;
  out[0] = counts.saturated;
  out[1] = counts.flushed;
  out[2] = counts.nonfinite;
}

float observe_tensor(int isa, uintptr_t x, int type, int64_t num_rows, int64_t num_cols, int64_t row_stride,
                     uintptr_t exponents, int num_threads) {
  const Observed seen = observe(static_cast<Isa>(isa), input(x), static_cast<Float>(type), {num_rows, num_cols, row_stride},
                                exponents != 0, num_threads);
  write_exponents(exponents, seen);
  return from_bits(seen.amax_bits);
}

void encode_tensor(int isa, uintptr_t x, int type, int64_t num_rows, int64_t num_cols, int64_t row_stride, float amax,
                   int format, int scale_bias, uintptr_t codes, uintptr_t values, uintptr_t counts, int num_threads) {
  const Counts seen = encode(static_cast<Isa>(isa), input(x), static_cast<Float>(type), {num_rows, num_cols, row_stride},
                             to_bits(amax) & magnitude_bits, encoding(format, scale_bias, codes, values, counts != 0),
                             num_threads);
  write_counts(counts, seen);
}

float cast_tensor(int isa, uintptr_t x, int type, int64_t num_rows, int64_t num_cols, int64_t row_stride, int format,
                  int scale_bias, uintptr_t codes, uintptr_t values, uintptr_t counts, uintptr_t exponents,
                  int num_threads) {
  Observed observed;
  const Counts seen = observe_and_encode(
      static_cast<Isa>(isa), input(x), static_cast<Float>(type), {num_rows, num_cols, row_stride}, exponents != 0,
      encoding(format, scale_bias, codes, values, counts != 0), num_threads, &observed);
  write_exponents(exponents, observed);
  write_counts(counts, seen);
  return from_bits(observed.amax_bits);
}

void decode_tensor(int isa, uintptr_t codes, int format, int64_t num_rows, int64_t num_cols, int64_t row_stride,
                   int scale_bias, uintptr_t out, int type, int num_threads) {
  decode(static_cast<Isa>(isa), output<const uint8_t>(codes), {num_rows, num_cols, row_stride}, static_cast<Fp8>(format),
         scale_bias, output<void>(out), static_cast<Float>(type), num_threads);
}

// kind: the number of a format, or -1 for bfloat16.
Matrix matrix(uintptr_t address, int kind, int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride) {
  return {input(address), kind < 0, static_cast<Fp8>(kind < 0 ? 0 : kind), rows, cols, row_stride, col_stride};
}

bool multiply(int isa, uintptr_t a, int a_kind, int64_t a_row_stride, int64_t a_col_stride, uintptr_t b, int b_kind,
              int64_t b_row_stride, int64_t b_col_stride, int64_t m, int64_t k, int64_t n, int scale_bias,
              uintptr_t bias, int bias_type, uintptr_t out, int type, int num_threads) {
  const Output output = {reinterpret_cast<void*>(out), static_cast<Float>(type), n,
                         input(bias), static_cast<Float>(bias_type), scale_bias};
  return matmul(static_cast<Isa>(isa), matrix(a, a_kind, m, k, a_row_stride, a_col_stride),
                matrix(b, b_kind, k, n, b_row_stride, b_col_stride), output, num_threads);
}

// (epsilon, address of the weight), and so on: tuples of numbers, in the order of the structs' members.
using NormFacts = std::tuple<uintptr_t, float>;
using LinearFacts = std::tuple<uintptr_t, int, int, int64_t, int64_t, int, int, int>;

Norm norm(const NormFacts& facts) { return {output<const uint16_t>(std::get<0>(facts)), std::get<1>(facts)}; }

Linear linear(const LinearFacts& facts) {
  const auto& [codes, format, scale_bias, num_in, num_out, rule, rule_format, rule_value] = facts;
  return {output<const uint8_t>(codes), static_cast<Fp8>(format), scale_bias, num_in, num_out,
          {static_cast<InputRule::Kind>(rule), static_cast<Fp8>(rule_format), rule_value}};
}

void make_layer(DecoderLayer* self, std::tuple<int64_t, int64_t, int64_t> heads, float attention_scale,
                const NormFacts& norm1, const NormFacts& norm2, const std::vector<LinearFacts>& linears) {
  if (linears.size() != DecoderLayer::num_linears) throw std::invalid_argument("a decoder layer has 7 linear layers");
  const auto [num_heads, num_kv_heads, head_dim] = heads;
  new (self) DecoderLayer{num_heads,         num_kv_heads,       head_dim,           attention_scale,
                          norm(norm1),       norm(norm2),        linear(linears[0]), linear(linears[1]),
                          linear(linears[2]), linear(linears[3]), linear(linears[4]), linear(linears[5]),
                          linear(linears[6])};
}

int step(const DecoderLayer& layer, int isa, uintptr_t x, int64_t num_rows, uintptr_t cosines, uintptr_t sines,
         uintptr_t keys, uintptr_t values, int64_t head_stride, int64_t length, uintptr_t out, int num_threads) {
  const Cached cache = {output<uint16_t>(keys), output<uint16_t>(values), head_stride, length};
  return decode_rows(static_cast<Isa>(isa), layer, output<const uint16_t>(x), num_rows, output<const uint16_t>(cosines),
                     output<const uint16_t>(sines), cache, output<uint16_t>(out), num_threads);
}

// (address of keys, of values, head_stride, length)
using CacheFacts = std::tuple<uintptr_t, uintptr_t, int64_t, int64_t>;

int step_through(int isa, const std::vector<const DecoderLayer*>& layers, const std::vector<CacheFacts>& caches,
                 uintptr_t x, uintptr_t cosines, uintptr_t sines, uintptr_t out, int num_threads) {
  if (layers.empty() || layers.size() != caches.size()) throw std::invalid_argument("each layer has a cache");
  std::vector<Cached> cached;
  for (const auto& [keys, values, head_stride, length] : caches)
    cached.push_back({output<uint16_t>(keys), output<uint16_t>(values), head_stride, length});
  return decode_token(static_cast<Isa>(isa), layers.data(), cached.data(), static_cast<int>(layers.size()),
                      output<const uint16_t>(x), output<const uint16_t>(cosines), output<const uint16_t>(sines),
                      output<uint16_t>(out), num_threads);
}

void norm_rows(int isa, uintptr_t x, int64_t num_rows, int64_t n, uintptr_t weight, float epsilon, uintptr_t out) {
  rms_norm(static_cast<Isa>(isa), output<const uint16_t>(x), num_rows, n, norm({weight, epsilon}), output<uint16_t>(out));
}

bool isa_serves_rows(int isa) { return serves_rows(static_cast<Isa>(isa)); }

int scale_bias_of(float amax, int format, int margin) {
  return amax_to_scale_bias(to_bits(amax), static_cast<Fp8>(format), margin);
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (int isa = 0; isa < num_isas; ++isa)
    if (is_available(static_cast<Isa>(isa))) names.emplace_back(name_of(static_cast<Isa>(isa)));
  return names;
}

// name, exponent_bits, mantissa_bits, bias, largest value, NaN code: for the test that compares with numerics/formats.py.
std::vector<std::tuple<std::string, int, int, int, float, int>> format_rows() {
  std::vector<std::tuple<std::string, int, int, int, float, int>> rows;
  for (const Format& f : formats)
    rows.emplace_back(f.name, f.exponent_bits, f.mantissa_bits, f.bias, from_bits(f.max_bits()), f.nan_code());
  return rows;
}

using release_gil = nb::call_guard<nb::gil_scoped_release>;

}  // namespace

NB_MODULE(_core, module) {
  module.doc() = "The C++ core: addresses and numbers, unchecked. octoscale.kernels.native is its only user.";
  module.def("isas", &available_isas);
  module.def("formats", &format_rows);
  module.def("use_pool", &use_pool);
  module.def("observe", &observe_tensor, release_gil());
  module.def("encode", &encode_tensor, release_gil());
  module.def("cast", &cast_tensor, release_gil());
  module.def("decode", &decode_tensor, release_gil());
  module.def("matmul", &multiply, release_gil());
  module.def("scale_bias", &scale_bias_of);
  module.def("serves_rows", &isa_serves_rows);
  module.def("rms_norm", &norm_rows, release_gil());
  module.def("step_through", &step_through, release_gil());
  nb::class_<DecoderLayer>(module, "DecoderLayer").def("__init__", &make_layer).def("step", &step, release_gil());
}
