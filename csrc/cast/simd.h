// The casts for any vector instruction set. `V` holds the instructions; each .cpp that includes this has its own.
//
// Encoding, for 4 vectors of float32 at a time. Let y = x * 2**scale_bias, with exponent e, not below the format's
// smallest normal one. Adding C = 2**(e + 23 - mantissa_bits) to |y| makes the adder round |y| to the format's grid, to
// nearest, ties to even; the number of steps stands in the lowest bits of the sum:
//
//     code = steps + ((e - min_exponent) << mantissa_bits)          steps includes the implicit bit, if there is one
//
// so subnormals and a rounding up to the next binade need no case of their own. Only the lowest byte of the sum counts.
//
// Counting exponents: 1 << (top - exponent field) is one bit in one of 32 columns; carry-save adders sum the columns of
// 256 vectors before anything is counted. Values outside of the 32 binades below `top` are counted one by one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "cast/each.h"
#include "cast/kernels.h"
#include "common/constants.h"
#include "common/scalar.h"

namespace octoscale {
namespace {

// How many values have each exponent field: a vertical counter of 32 columns per lane, in bit-sliced form.
template <class V>
class ExponentCounter {
 public:
  using Int = typename V::Int;
  static constexpr int levels = 8;
  static constexpr int64_t block = V::lanes << levels;  // elements of one call of count_block

  explicit ExponentCounter(int64_t* exponents) : exponents_(exponents) {}
  ~ExponentCounter() { flush(); }
  ExponentCounter(const ExponentCounter&) = delete;
  ExponentCounter& operator=(const ExponentCounter&) = delete;

  // Counts `block` values; returns the largest |x| among them, in every lane or some.
  template <Float T>
  Int count_block(const char* x) {
    zeros_ = 0;
    furthest_ = largest_ = V::zero();
    const Int carry = collect<T, levels>(x);
    for (int bit = 0; bit < 32; ++bit) columns_[bit] += static_cast<int64_t>(V::count_bit(carry, bit)) << levels;
    exponents_[0] += zeros_;
    if (V::max(furthest_) > 31) count_outside<T>(x);
    return largest_;
  }

 private:
  // The sum of the columns of 2**L vectors: its parts below 2**L stay in slices_, the rest, of weight 2**L, returns.
  template <Float T, int L>
  Int collect(const char* x) {
    if constexpr (L == 0) {
      return one_hot(V::template load<T>(x));
    } else {
      const Int low = collect_half<T, L - 1>(x);
      const Int high = collect_half<T, L - 1>(x + (V::lanes << (L - 1)) * size_of(T));
      const Int carry = V::majority(slices_[L - 1], low, high);
      slices_[L - 1] = V::parity(slices_[L - 1], low, high);
      return carry;
    }
  }

  // Not inlined above 16 vectors: the code would not fit the instruction cache.
  template <Float T, int L>
  Int collect_half(const char* x) {
    if constexpr (L >= 4) return collect_apart<T, L>(x);
    else return collect<T, L>(x);
  }
  template <Float T, int L>
  __attribute__((noinline)) Int collect_apart(const char* x) {
    return collect<T, L>(x);
  }

  Int one_hot(Int bits) {
    const Int magnitude = V::magnitude(bits);
    largest_ = V::max(largest_, magnitude);
    const Int column = V::sub(V::set(top_), V::template shift_right<23>(magnitude));
    // A field of 0 (zeros, and float32's subnormals) is counted apart, for zeros are common.
    furthest_ = V::max_where_normal(furthest_, column, magnitude, &zeros_);
    return V::shift_one_left(column, magnitude);
  }

  template <Float T>
  __attribute__((noinline)) void count_outside(const char* x) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < block; ++i) {
      const uint32_t field = (to_bits(load<T>(x, i)) & magnitude_bits) >> 23;
      if (field != 0 && static_cast<uint32_t>(top_) - field > 31u) ++exponents_[field];
      if (field != 255) largest = std::max(largest, field);
    }
    const int wanted = static_cast<int>(largest) + headroom;
    if (largest && std::abs(wanted - top_) > headroom) {
      flush();
      top_ = wanted;
    }
  }

  void flush() {
    for (int level = 0; level < levels; ++level) {
      for (int bit = 0; bit < 32; ++bit)
        columns_[bit] += static_cast<int64_t>(V::count_bit(slices_[level], bit)) << level;
      slices_[level] = V::zero();
    }
    for (int bit = 0; bit < 32; ++bit) {
      if (columns_[bit]) exponents_[top_ - bit] += columns_[bit];
      columns_[bit] = 0;
    }
  }

  static constexpr int headroom = 4;  // binades above the largest value of the block that set the window

  int64_t* exponents_;
  int top_ = 127 + headroom;
  Int slices_[levels] = {};
  Int largest_ = V::zero(), furthest_ = V::zero();
  int64_t zeros_ = 0;
  int64_t columns_[32] = {};
};

template <class V, Float T>
uint32_t observe_vectors(const char* x, int64_t n) {
  using Int = typename V::Int;
  Int largest[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  constexpr int64_t step = V::template num_raw<T>;  // elements in a register before any widening
  constexpr int64_t size = size_of(T);
  int64_t i = 0;
  for (; i + 4 * step <= n; i += 4 * step)
    for (int part = 0; part < 4; ++part) {
      V::prefetch(x + (i + part * step) * size);
      largest[part] = V::template max_raw<T>(largest[part], x + (i + part * step) * size);
    }
  const Int low = V::template max_raw<T>(largest[0], largest[1]), high = V::template max_raw<T>(largest[2], largest[3]);
  return std::max(V::template widen_max<T>(low, high), observe_each<T>(x + i * size, n - i, nullptr));
}

template <class V, Float T>
uint32_t observe(const void* source, int64_t n, int64_t* exponents) {
  const char* x = static_cast<const char*>(source);
  if (!exponents) return observe_vectors<V, T>(x, n);
  constexpr int64_t size = size_of(T);
  constexpr int64_t block = ExponentCounter<V>::block;
  uint32_t result = 0;
  int64_t i = 0;
  if (n >= block) {
    ExponentCounter<V> counter(exponents);
    typename V::Int largest = V::zero();
    for (; i + block <= n; i += block) largest = V::max(largest, counter.template count_block<T>(x + i * size));
    result = V::max(largest);
  }
  return std::max(result, observe_each<T>(x + i * size, n - i, exponents));
}

// The code of one vector of finite values, scaled, in the lowest byte of each lane, without the sign; other bytes hold
// garbage.
template <class V, Fp8 F, bool tame>
inline typename V::Int encode_vector(typename V::Int scaled) {
  constexpr Format format = row(F);
  constexpr int shift = 23 - format.mantissa_bits;
  using Int = typename V::Int;
  Int y = V::magnitude(scaled);
  if constexpr (!tame) y = V::min(y, V::set(static_cast<int>(format.max_bits())));
  const Int exponent = V::max(V::bit_and(y, V::set(static_cast<int>(infinity_bits))),
                              V::set((format.min_exponent() + 127) << 23));
  const Int step = V::add(exponent, V::set(shift << 23));
  const Int sum = V::bits(V::add(V::real(y), V::real(step)));
  return V::add(sum, V::template shift_right<shift>(exponent));
}

// 4 vectors of values -> as many codes. scale(i): of vector i. A count of null: nothing is counted.
template <class V, Float T, Fp8 F, bool tame, class Scale>
inline void encode_block(const char* x, Scale scale, uint8_t* codes, Counts* counts) {
  constexpr Format format = row(F);
  constexpr int64_t stride = V::lanes * size_of(T);
  using Int = typename V::Int;
  using Bytes = typename V::Bytes;
  Int bits[4], scaled[4], code[4];
  for (int part = 0; part < 4; ++part) {
    bits[part] = V::template load<T>(x + part * stride);
    scaled[part] = V::bits(V::mul(V::real(bits[part]), scale(part)));
    code[part] = encode_vector<V, F, tame>(scaled[part]);
  }
  // The exponent was counted from float32's zero; one subtraction for all bytes counts it from the format's.
  constexpr int offset = ((format.min_exponent() + 127) << format.mantissa_bits) & 0xFF;
  Bytes magnitude = V::sub_bytes(V::pack(code), V::set_bytes(offset));
  const auto zero_codes = V::zero_mask(magnitude);
  Bytes result = V::or_signs(magnitude, bits);
  if constexpr (format.is_fnuz()) result = V::clear_where(result, zero_codes);
  if (counts && V::count_both(zero_codes, zero_codes))  // rare: what it saves is a tenth of the work
    counts->flushed += V::count_both(zero_codes, V::nonzero_mask(bits));
  if constexpr (!tame) {
    const auto nonfinite = V::nonfinite_mask(bits);
    result = V::blend(result, V::set_bytes(format.nan_code()), nonfinite);
    if (counts) {
      counts->nonfinite += V::count_both(nonfinite, nonfinite);
      counts->saturated += V::count_without(V::above_mask(scaled, V::set(1.0f), format.max_bits()), nonfinite);
    }
  }
  V::store(codes, result);
}

// The same of the n values, less than a block, that are left over: with zeros behind them, which count as nothing.
template <class V, Float T, Fp8 F, bool tame, class Scale>
void encode_rest(const char* x, int64_t n, Scale scale, uint8_t* codes, Counts* counts) {
  constexpr int64_t block = 4 * V::lanes, size = size_of(T);
  alignas(64) char rest[block * size] = {};
  uint8_t rest_codes[block];
  std::memcpy(rest, x, static_cast<size_t>(n * size));
  encode_block<V, T, F, tame>(rest, scale, rest_codes, counts);
  std::memcpy(codes, rest_codes, static_cast<size_t>(n));
}

template <class V, Float T, Fp8 F, bool tame>
void encode_run(const char* x, int64_t n, int scale_bias, uint8_t* codes, Counts* counts) {
  constexpr int64_t block = 4 * V::lanes, size = size_of(T);
  const auto one = V::set(power_of_two(scale_bias));
  const auto scale = [one](int) { return one; };
  Counts local;
  Counts* found = counts ? &local : nullptr;
  int64_t i = 0;
  if (counts)
    for (; i + block <= n; i += block) encode_block<V, T, F, tame>(x + i * size, scale, codes + i, &local);
  else
    for (; i + block <= n; i += block) encode_block<V, T, F, tame>(x + i * size, scale, codes + i, nullptr);
  if (i < n) encode_rest<V, T, F, tame>(x + i * size, n - i, scale, codes + i, found);
  if (counts) add(counts, local);
}

template <class V>
uint32_t observe_any(const void* x, Float type, int64_t n, int64_t* exponents) {
  uint32_t result = 0;
  with_float(type, [&](auto T) { result = observe<V, T.value>(x, n, exponents); });
  return result;
}

template <class V>
void encode_any(const void* x, Float type, int64_t n, Fp8 format, int scale_bias, bool tame, uint8_t* codes,
                Counts* counts) {
  const char* bytes = static_cast<const char*>(x);
  with_float(type, [&](auto T) {
    with_format(format, [&](auto F) {
      if (tame) encode_run<V, T.value, F.value, true>(bytes, n, scale_bias, codes, counts);
      else encode_run<V, T.value, F.value, false>(bytes, n, scale_bias, codes, counts);
    });
  });
}

}  // namespace
}  // namespace octoscale
