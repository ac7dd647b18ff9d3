// Which instruction sets this CPU runs.
#pragma once

namespace octoscale {

// From the slowest to the fastest; each has all that those before it have. AMX adds products of many rows to AVX-512.
enum class Isa : int { scalar, avx2, avx512, amx };
constexpr int num_isas = 4;

const char* name_of(Isa isa);

// Whether this build and this CPU, as its operating system lets it, run `isa`.
bool is_available(Isa isa);

}  // namespace octoscale
