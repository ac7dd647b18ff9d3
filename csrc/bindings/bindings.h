// The border to Python: addresses and numbers in, numbers out. kernels/native.py has checked all of them.
//
// Tensors cross as addresses because nanobind and torch share no header, and because nothing is cheaper. The global
// interpreter lock is released while a kernel runs.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

namespace octoscale {

namespace nb = nanobind;
using release_gil = nb::call_guard<nb::gil_scoped_release>;

void bind_casts(nb::module_& module);
void bind_products(nb::module_& module);
void bind_accumulation(nb::module_& module);
void bind_decoder(nb::module_& module);

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

}  // namespace octoscale
