// Scales that change along a sum, for AVX-512 and AMX: put into values of bfloat16, where a power of two is exact.
//
// A code has at most 4 significant bits, and scales of a sum lie within 2**92: a product is 2**-126 at least, which the
// dot products of bfloat16, that know no subnormals, hold as well.
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "common/lanes_avx512.h"
#include "product/matmul.h"

namespace octoscale {
namespace {

// What `lowered` takes for both values of a pair, by the exponent in each lane of 32 bits.
inline __m512i binades(__m512i exponents) {
  return _mm512_or_si512(_mm512_slli_epi32(exponents, 7), _mm512_slli_epi32(exponents, 23));
}

inline bool is_zero(__m512i x) { return _mm512_test_epi32_mask(x, x) == 0; }

// Row r of a matrix, decoded: each 32 values, from k on, at at(k).
template <class At>
void scale_row(const Matrix& m, int64_t r, At at) {
  if (!m.inner.exponents) return;
  for (int64_t k = 0; k < m.cols; k += 32) {
    const __m512i by = binades(_mm512_set1_epi32(m.inner.at(r, k)));
    if (is_zero(by)) continue;
    const __mmask32 mask = first_lanes<__mmask32>(m.cols - k);
    uint16_t* values = at(k);
    _mm512_mask_storeu_epi16(values, mask, lowered(_mm512_maskz_loadu_epi16(mask, values), by));
  }
}

// Of columns [c, c + 16) in row k.
inline __m512i exponents_of(const Matrix& m, int64_t k, int64_t c) {
  const int64_t n = std::min<int64_t>(16, m.cols - c), group = m.inner.col_group;
  if (c / group == (c + n - 1) / group) return _mm512_set1_epi32(m.inner.at(k, c));
  alignas(64) int32_t of_each[16] = {};
  for (int64_t i = 0; i < n; ++i) of_each[i] = m.inner.at(k, c + i);
  return _mm512_load_si512(of_each);
}

}  // namespace
}  // namespace octoscale
