// Dot products in 8 lanes that run along k.
#pragma once

#include <immintrin.h>

#include <algorithm>

#include "common/decode_avx2.h"
#include "product/matmul.h"

namespace octoscale {
namespace {

inline float sum_lanes(__m256 x) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// The dot products of one row of codes with M rows of x, each summed in so many registers: with several, one
// multiplication need not wait for the one before.
template <Fp8 F, int M, int parts>
void dot_row(const uint8_t* codes, int64_t k, const float* x, int64_t padded, float* sums) {
  __m256 sum[M][parts];
  for (auto& row : sum)
    for (auto& part : row) part = _mm256_setzero_ps();
  const auto add = [&](const uint8_t* from, int64_t i, int part) {
    const __m256 weight = decode_vector<F>(load_codes(from));
    for (int m = 0; m < M; ++m)
      sum[m][part] = _mm256_fmadd_ps(weight, _mm256_load_ps(x + m * padded + i), sum[m][part]);
  };
  int64_t i = 0;
  for (; i + 8 * parts <= k; i += 8 * parts) {
    _mm_prefetch(reinterpret_cast<const char*>(codes + i) + 1024, _MM_HINT_T0);
    for (int part = 0; part < parts; ++part) add(codes + i + 8 * part, i + 8 * part, part);
  }
  for (; i + 8 <= k; i += 8) add(codes + i, i, 0);
  if (i < k) add(padded_codes(codes + i, k - i).data(), i, 0);
  for (int m = 0; m < M; ++m) {
    __m256 total = sum[m][0];
    for (int part = 1; part < parts; ++part) total = _mm256_add_ps(total, sum[m][part]);
    sums[m] = sum_lanes(total);
  }
}

// The dot product of one row of codes with one of x, each run of it times its scale.
template <Fp8 F>
float dot_runs(const uint8_t* codes, int64_t k, const float* x, const float* scales) {
  __m256 total = _mm256_setzero_ps();
  for (int64_t first = 0; first < k; first += run_length) {
    __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();  // two: the next run need not wait for their sum
    const auto add = [&](const uint8_t* from, int64_t i, __m256& sum) {
      sum = _mm256_fmadd_ps(decode_vector<F>(load_codes(from)), _mm256_load_ps(x + i), sum);
    };
    const int64_t end = std::min(k, first + run_length);
    for (int64_t byte = 1024; byte < 1024 + run_length; byte += 64)
      _mm_prefetch(reinterpret_cast<const char*>(codes + first) + byte, _MM_HINT_T0);
    const auto add_both = [&](int64_t i) {
      add(codes + i, i, even);
      add(codes + i + 8, i + 8, odd);
    };
    int64_t i = first;
    if (end - first == run_length) {
#pragma GCC unroll 8
      for (int64_t part = 0; part < run_length; part += 16) add_both(first + part);
      i = end;
    }
    for (; i + 16 <= end; i += 16) add_both(i);
    if (i + 8 <= end) add(codes + i, i, even), i += 8;
    if (i < end) add(padded_codes(codes + i, end - i).data(), i, odd);
    total = _mm256_fmadd_ps(_mm256_add_ps(even, odd), _mm256_set1_ps(scales[first / run_length]), total);
  }
  return sum_lanes(total);
}

// num_rows: from 1 to 4. parts: of a single row; several rows need no more than one.
template <Fp8 F, int parts>
void dot_row_any(int64_t num_rows, const uint8_t* codes, int64_t k, const float* x, int64_t padded, float* sums) {
  switch (num_rows) {
    case 1: return dot_row<F, 1, parts>(codes, k, x, padded, sums);
    case 2: return dot_row<F, 2, 1>(codes, k, x, padded, sums);
    case 3: return dot_row<F, 3, 1>(codes, k, x, padded, sums);
    case 4: return dot_row<F, 4, 1>(codes, k, x, padded, sums);
  }
}

}  // namespace
}  // namespace octoscale
