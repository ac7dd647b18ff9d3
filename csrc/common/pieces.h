// Cutting: how many pieces of a size there are, the last of which may be smaller.
#pragma once

#include <cstdint>

namespace octoscale {
namespace {

constexpr int64_t ceil_div(int64_t n, int64_t size) { return (n + size - 1) / size; }

// What they take if each is whole.
constexpr int64_t round_up(int64_t n, int64_t size) { return ceil_div(n, size) * size; }

}  // namespace
}  // namespace octoscale
