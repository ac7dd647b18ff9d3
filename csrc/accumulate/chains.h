// The kernels, once for all instruction sets: `lanes` columns of b go through a row of a side by side, in loops that a
// compiler turns into vectors. All is exact but the cuts themselves, so every instruction set gives the same bits.
//
// A code is significand * 2**(exponent - mantissa_bits), the significand an int that is no larger than 15. A product is
// then cut off by one shift to the right, by as much as its exponent lies below the largest one.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "accumulate/accumulate.h"
#include "common/pool.h"
#include "common/scalar.h"
#include "product/elements.h"

namespace octoscale {
namespace {

constexpr int16_t no_exponent = -1000;  // of zero: it is never the largest

struct Code {
  int16_t significand, exponent;
};

// The values of all codes of a format; NaN and infinity count as zero here.
struct Codes {
  Code of[256];
  bool is_finite[256];

  explicit Codes(Fp8 number) {
    const Format& f = row(number);
    for (int code = 0; code < 256; ++code) {
      const int field = (code & 0x7F) >> f.mantissa_bits, mantissa = code & ((1 << f.mantissa_bits) - 1);
      const int magnitude = field ? mantissa | (1 << f.mantissa_bits) : mantissa;
      is_finite[code] = f.is_fnuz() ? code != f.nan_code() : (code & 0x7F) <= f.max_code();
      const bool is_zero = magnitude == 0 || !is_finite[code];
      of[code] = {static_cast<int16_t>(is_zero ? 0 : code & 0x80 ? -magnitude : magnitude),
                  is_zero ? no_exponent : static_cast<int16_t>(std::max(field, 1) - f.bias)};
    }
  }
};

// Columns of b next to each other, term by term.
struct Columns {
  std::vector<int16_t> significands, exponents;

  explicit Columns(int64_t size) : significands(size, 0), exponents(size, no_exponent) {}
};

inline uint8_t code_at(const Matrix& x, int64_t r, int64_t c) {
  return static_cast<const uint8_t*>(x.data)[r * x.row_stride + c * x.col_stride];
}

inline int exponent_of(float x) { return x == 0 ? no_exponent : static_cast<int>((to_bits(x) >> 23) & 0xFF) - 127; }

// 2**exponent, of a normal number.
inline double wide_power_of_two(int exponent) {
  const uint64_t bits = static_cast<uint64_t>(exponent + 1023) << 52;
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// body(first, last) of each block of the products [first, last), which a core adds up at once; the last may be shorter.
template <class Body>
void for_each_block(const Accumulation& rule, int64_t first, int64_t last, Body&& body) {
  for (int64_t k = first; k < last; k += rule.block) body(k, std::min<int64_t>(k + rule.block, last));
}

// `lanes` sums, or fewer bits of them. Int: wide enough for a block's sum, whose terms are below 2**(fraction + 2).
template <int lanes, class Int, class Real>
struct Chains {
  const Accumulation& rule;
  int mantissa_bits;  // of both formats together

  // Adds the products of rows [first, last) to the sums.
  void add(const Code* a, const Columns& b, int64_t first, int64_t last, float* sums) const {
    for_each_block(rule, first, last, [&](int64_t from, int64_t to) { add_block(a, b, from, to, sums); });
  }

  void add_block(const Code* a, const Columns& b, int64_t first, int64_t last, float* sums) const {
    int32_t largest[lanes];
    Int total[lanes];
    for (int l = 0; l < lanes; ++l) largest[l] = std::max(rule.floor, exponent_of(sums[l]));
    for (int64_t k = first; k < last; ++k) {
      const int32_t exponent = a[k].exponent;
      const int16_t* exponents = &b.exponents[k * lanes];
      for (int l = 0; l < lanes; ++l) largest[l] = std::max(largest[l], exponent + exponents[l]);
    }
    for (int l = 0; l < lanes; ++l)
      total[l] = static_cast<Int>(static_cast<Real>(sums[l]) * real_power(rule.fraction - largest[l]));
    const int up = rule.fraction - mantissa_bits;
    for (int64_t k = first; k < last; ++k) {
      const int32_t significand = a[k].significand * (1 << up), exponent = a[k].exponent;
      const int16_t *significands = &b.significands[k * lanes], *exponents = &b.exponents[k * lanes];
      for (int l = 0; l < lanes; ++l) {
        const int32_t product = significand * significands[l], sign = product >> 31;
        const int32_t below = std::min(largest[l] - exponent - exponents[l], 31);
        const int32_t magnitude = static_cast<int32_t>(static_cast<uint32_t>((product ^ sign) - sign) >> below);
        total[l] += (magnitude ^ sign) - sign;
      }
    }
    for (int l = 0; l < lanes; ++l) sums[l] = cut(total[l], largest[l] - rule.fraction);
  }

  // total * 2**exponent, towards zero, with `kept` bits behind the first one.
  float cut(Int total, int exponent) const;
  static Real real_power(int exponent);
};

template <int lanes>
using Narrow = Chains<lanes, int32_t, float>;  // up to 15 bits of fraction: blocks of 2**20 at most
template <int lanes>
using Wide = Chains<lanes, int64_t, double>;

template <int lanes, class Int, class Real>
inline Real Chains<lanes, Int, Real>::real_power(int exponent) {
  if constexpr (sizeof(Real) == 4) {
    return from_bits(static_cast<uint32_t>(std::clamp(exponent, -126, 127) + 127) << 23);  // beyond, sums are zero
  } else {
    return wide_power_of_two(exponent);
  }
}

template <int lanes, class Int, class Real>
inline float Chains<lanes, Int, Real>::cut(Int total, int exponent) const {
  const Real exact = static_cast<Real>(total) * real_power(exponent);
  if constexpr (sizeof(Real) == 4) {
    return from_bits(to_bits(exact) & ~((1u << (23 - rule.kept)) - 1));
  } else {
    uint64_t bits;
    std::memcpy(&bits, &exact, sizeof bits);
    bits &= ~((uint64_t{1} << (52 - rule.kept)) - 1);
    double x;
    std::memcpy(&x, &bits, sizeof x);
    return static_cast<float>(x);
  }
}

// x * 2**-by, rounded down; at most 31 bits are shifted.
inline int32_t shifted_down(int32_t x, int by) { return x >> std::min(by, 31); }

// As AMD's matrix cores sum: the halves of a block, the products with even and odd numbers, are cut off each beside its
// own largest exponent, and the sum so far joins the sum of both, which is then rounded to nearest.
template <int lanes>
struct Joined {
  const Accumulation& rule;
  int mantissa_bits;

  void add(const Code* a, const Columns& b, int64_t first, int64_t last, float* sums) const {
    for_each_block(rule, first, last, [&](int64_t from, int64_t to) { add_block(a, b, from, to, sums); });
  }

  void add_block(const Code* a, const Columns& b, int64_t first, int64_t last, float* sums) const {
    int32_t even[lanes], odd[lanes], even_exponent[lanes], odd_exponent[lanes];
    add_half(a, b, first, last, even, even_exponent);
    add_half(a, b, first + 1, last, odd, odd_exponent);
    for (int l = 0; l < lanes; ++l) {
      const int largest = std::max(even_exponent[l], odd_exponent[l]);
      sums[l] = join(sums[l], shifted_down(even[l], largest - even_exponent[l]) +
                                  shifted_down(odd[l], largest - odd_exponent[l]), largest);
    }
  }

  // The sums of every second product, in units of `fraction` bits below its largest exponent.
  void add_half(const Code* a, const Columns& b, int64_t first, int64_t last, int32_t* total, int32_t* largest) const {
    for (int l = 0; l < lanes; ++l) total[l] = 0, largest[l] = rule.floor;
    for (int64_t k = first; k < last; k += 2) {
      const int32_t exponent = a[k].exponent;
      const int16_t* exponents = &b.exponents[k * lanes];
      for (int l = 0; l < lanes; ++l) largest[l] = std::max(largest[l], exponent + exponents[l]);
    }
    const int up = rule.fraction - mantissa_bits;
    for (int64_t k = first; k < last; k += 2) {
      const int32_t significand = a[k].significand * (1 << up), exponent = a[k].exponent;
      const int16_t *significands = &b.significands[k * lanes], *exponents = &b.exponents[k * lanes];
      for (int l = 0; l < lanes; ++l) {
        const int32_t product = significand * significands[l], sign = product >> 31;
        const int32_t below = std::min(largest[l] - exponent - exponents[l], 31);
        const int32_t magnitude = static_cast<int32_t>(static_cast<uint32_t>((product ^ sign) - sign) >> below);
        total[l] += (magnitude ^ sign) - sign;
      }
    }
  }

  float join(float sum, int32_t total, int largest) const {
    const int before = std::max(exponent_of(sum), rule.floor), top = std::max(largest, before);
    const int more = rule.joined - rule.fraction;
    int64_t added = (static_cast<int64_t>(total) << more) >> std::min(top - largest, 63);
    if (top - before <= rule.fraction + 1) {
      const auto significand = static_cast<int64_t>(sum * wide_power_of_two(rule.fraction - before));
      added += (significand >> (top - before)) << more;
    }
    return static_cast<float>(static_cast<double>(added) * wide_power_of_two(top - rule.joined));
  }
};

// What a sum gives that has codes which are not finite, at these terms of the row and the column: NaN, or an infinity
// of E5. No finite product changes that.
inline float special_sum(const Matrix& a, const Matrix& b, int64_t r, int64_t c, const std::vector<int64_t>& in_row,
                         const std::vector<int64_t>& in_column) {
  float sum = 0;
  for (const std::vector<int64_t>* terms : {&in_row, &in_column})
    for (const int64_t k : *terms) sum += element(a, r, k) * element(b, k, c);
  return std::isnan(sum) ? from_bits(0x7FFFFFFF) : sum;
}

template <int lanes, class Sums>
void accumulate_with(const Accumulation& rule, const Matrix& a, const Matrix& b, float* out, int num_threads) {
  const Codes a_codes(a.format), b_codes(b.format);
  const Sums sums{rule, row(a.format).mantissa_bits + row(b.format).mantissa_bits};
  const int64_t num_terms = a.cols, chain = rule.chain ? rule.chain : std::max<int64_t>(num_terms, 1);
  std::vector<Code> rows(a.rows * num_terms);
  std::vector<std::vector<int64_t>> row_specials(a.rows);
  parallel_for(static_cast<int>(a.rows), num_threads, [&](int r) {
    for (int64_t k = 0; k < num_terms; ++k) {
      const uint8_t code = code_at(a, r, k);
      rows[r * num_terms + k] = a_codes.of[code];
      if (!a_codes.is_finite[code]) row_specials[r].push_back(k);
    }
  });
  const int num_tiles = static_cast<int>((b.cols + lanes - 1) / lanes);
  parallel_for(num_tiles, num_threads, [&](int tile) {
    const int64_t first = static_cast<int64_t>(tile) * lanes, count = std::min<int64_t>(lanes, b.cols - first);
    Columns columns(num_terms * lanes);
    std::vector<int64_t> column_specials[lanes];
    for (int64_t k = 0; k < num_terms; ++k)
      for (int64_t l = 0; l < count; ++l) {
        const uint8_t code = code_at(b, k, first + l);
        columns.significands[k * lanes + l] = b_codes.of[code].significand;
        columns.exponents[k * lanes + l] = b_codes.of[code].exponent;
        if (!b_codes.is_finite[code]) column_specials[l].push_back(k);
      }
    for (int64_t r = 0; r < a.rows; ++r) {
      float total[lanes] = {};
      for (int64_t k = 0; k < num_terms; k += chain) {
        float sum[lanes] = {};
        sums.add(&rows[r * num_terms], columns, k, std::min(k + chain, num_terms), sum);
        for (int l = 0; l < lanes; ++l) total[l] = k == 0 ? sum[l] : total[l] + sum[l];
      }
      for (int64_t l = 0; l < count; ++l) {
        const bool is_finite = row_specials[r].empty() && column_specials[l].empty();
        out[r * b.cols + first + l] =
            is_finite ? total[l] : special_sum(a, b, r, first + l, row_specials[r], column_specials[l]);
      }
    }
  });
}

template <int lanes>
void accumulate_lanes(const Accumulation& rule, const Matrix& a, const Matrix& b, float* out, int num_threads) {
  if (rule.joined) return accumulate_with<lanes, Joined<lanes>>(rule, a, b, out, num_threads);
  if (rule.fraction <= 15) return accumulate_with<lanes, Narrow<lanes>>(rule, a, b, out, num_threads);
  accumulate_with<lanes, Wide<lanes>>(rule, a, b, out, num_threads);
}

}  // namespace
}  // namespace octoscale
