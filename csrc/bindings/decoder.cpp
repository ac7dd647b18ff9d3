// Decoder layers, for Python.

#include "decoder/layer.h"

#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <tuple>
#include <vector>

#include "bindings/bindings.h"

namespace octoscale {
namespace {

// (address of the weight, epsilon), and so on: tuples of numbers, in the order of the structs' members.
using NormFacts = std::tuple<uintptr_t, float>;
using ScaleFacts = std::tuple<int, int, float, uintptr_t, uintptr_t>;
using RuleFacts = std::tuple<int, int, int, float>;
using LinearFacts = std::tuple<uintptr_t, int, ScaleFacts, int64_t, int64_t, RuleFacts>;

Norm norm(const NormFacts& facts) { return {pointer<const uint16_t>(std::get<0>(facts)), std::get<1>(facts)}; }

Linear linear(const LinearFacts& facts) {
  const auto& [codes, format, scales, num_in, num_out, rule] = facts;
  const auto& [reach, bias, factor, biases, factors] = scales;
  const auto& [kind, rule_format, value, divisor] = rule;
  return {pointer<const uint8_t>(codes),
          static_cast<Fp8>(format),
          {static_cast<WeightScales::Reach>(reach), bias, factor, pointer<const int32_t>(biases),
           pointer<const float>(factors)},
          num_in,
          num_out,
          {static_cast<InputRule::Kind>(kind), static_cast<Fp8>(rule_format), value, divisor}};
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

int step_layer(const DecoderLayer& layer, int isa, uintptr_t x, int64_t num_rows, uintptr_t cosines, uintptr_t sines,
               uintptr_t keys, uintptr_t values, int64_t head_stride, int64_t length, uintptr_t out, int num_threads) {
  const Cached cache = {pointer<uint16_t>(keys), pointer<uint16_t>(values), head_stride, length};
  return step(static_cast<Isa>(isa), layer, pointer<const uint16_t>(x), num_rows, pointer<const uint16_t>(cosines),
              pointer<const uint16_t>(sines), cache, pointer<uint16_t>(out), num_threads);
}

// (address of keys, of values, head_stride, length)
using CacheFacts = std::tuple<uintptr_t, uintptr_t, int64_t, int64_t>;

int step_layers(int isa, const std::vector<const DecoderLayer*>& layers, const std::vector<CacheFacts>& caches,
                uintptr_t x, uintptr_t cosines, uintptr_t sines, uintptr_t out, int num_threads) {
  if (layers.empty() || layers.size() != caches.size()) throw std::invalid_argument("each layer has a cache");
  std::vector<Cached> cached;
  for (const auto& [keys, values, head_stride, length] : caches)
    cached.push_back({pointer<uint16_t>(keys), pointer<uint16_t>(values), head_stride, length});
  return step_through(static_cast<Isa>(isa), layers.data(), cached.data(), static_cast<int>(layers.size()),
                      pointer<const uint16_t>(x), pointer<const uint16_t>(cosines), pointer<const uint16_t>(sines),
                      pointer<uint16_t>(out), num_threads);
}

void norm_rows(int isa, uintptr_t x, int64_t num_rows, int64_t n, uintptr_t weight, float epsilon, uintptr_t out) {
  rms_norm(static_cast<Isa>(isa), pointer<const uint16_t>(x), num_rows, n, norm({weight, epsilon}),
           pointer<uint16_t>(out));
}

bool isa_serves_rows(int isa) { return serves_rows(static_cast<Isa>(isa)); }

}  // namespace

void bind_decoder(nb::module_& module) {
  module.def("serves_rows", &isa_serves_rows);
  module.def("rms_norm", &norm_rows, release_gil());
  module.def("step_through", &step_layers, release_gil());
  nb::class_<DecoderLayer>(module, "DecoderLayer").def("__init__", &make_layer).def("step", &step_layer, release_gil());
}

}  // namespace octoscale
