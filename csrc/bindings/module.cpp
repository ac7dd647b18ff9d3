// The module, and what it says of itself.

#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <tuple>
#include <vector>

#include "bindings/bindings.h"
#include "common/formats.h"
#include "common/isa.h"
#include "common/pool.h"
#include "common/scalar.h"

namespace octoscale {
namespace {

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (int isa = 0; isa < num_isas; ++isa)
    if (is_available(static_cast<Isa>(isa))) names.emplace_back(name_of(static_cast<Isa>(isa)));
  return names;
}

// name, exponent_bits, mantissa_bits, bias, largest value, NaN code: for the test against numerics/formats.py.
std::vector<std::tuple<std::string, int, int, int, float, int>> format_rows() {
  std::vector<std::tuple<std::string, int, int, int, float, int>> rows;
  for (const Format& f : formats)
    rows.emplace_back(f.name, f.exponent_bits, f.mantissa_bits, f.bias, from_bits(f.max_bits()), f.nan_code());
  return rows;
}

}  // namespace
}  // namespace octoscale

NB_MODULE(_core, module) {
  module.doc() = "The C++ core: addresses and numbers, unchecked. octoscale.kernels has its only users.";
  module.def("isas", &octoscale::available_isas);
  module.def("formats", &octoscale::format_rows);
  module.def("use_pool", &octoscale::use_pool);
  octoscale::bind_casts(module);
  octoscale::bind_products(module);
  octoscale::bind_accumulation(module);
  octoscale::bind_decoder(module);
}
