// Numbers in lanes, for AVX-512: masks, loads, conversions, stores and dot products, of which its kernels are made.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "common/dtypes.h"

namespace octoscale {
namespace {

// The first n lanes of a mask that has more than n.
template <class Mask>
inline Mask few_lanes(int64_t n) {
  return static_cast<Mask>((1ull << n) - 1);
}

// The first n >= 0 lanes of a mask; all, if it has fewer.
template <class Mask>
inline Mask first_lanes(int64_t n) {
  return n >= int64_t{8 * sizeof(Mask)} ? static_cast<Mask>(~0ull) : few_lanes<Mask>(n);
}

// 64 codes, of which only the first n, if any, may be read; zeros stand for the others.
inline __m512i load_codes(const uint8_t* from, int64_t n) {
  if (n >= 64) return _mm512_loadu_si512(from);
  return _mm512_maskz_loadu_epi8(first_lanes<__mmask64>(std::max<int64_t>(0, n)), from);
}

// 32 values of 16 bits, `stride` apart, of which only the first n, if any, may be read; zeros stand for the others.
inline __m512i load_halves(const uint16_t* from, int64_t stride, int64_t n) {
  if (stride == 1) return _mm512_maskz_loadu_epi16(first_lanes<__mmask32>(std::max<int64_t>(0, n)), from);
  alignas(64) uint16_t gathered[32] = {};
  for (int64_t i = 0; i < std::min<int64_t>(32, n); ++i) gathered[i] = from[i * stride];
  return _mm512_load_si512(gathered);
}

inline __m512 widen_bf16(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

// Rounds to the nearest bfloat16, ties to even. Not vcvtneps2bf16, which makes zeros of subnormals.
inline __m256i to_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(-1)), 16));
}

// 16 values of any float dtype as float32; those beyond the mask are not read.
inline __m512 load_floats(const void* x, Float type, int64_t i, __mmask16 mask) {
  if (type == Float::f32) return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(x) + i);
  const __m256i half = _mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(x) + i);
  return type == Float::f16 ? _mm512_cvtph_ps(half) : widen_bf16(half);
}

inline void store_floats(void* out, Float type, int64_t i, __m512 x, __mmask16 mask) {
  if (type == Float::f32) return _mm512_mask_storeu_ps(static_cast<float*>(out) + i, mask, x);
  const __m256i half = type == Float::bf16 ? to_bf16(x) : _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT);
  _mm256_mask_storeu_epi16(static_cast<uint16_t*>(out) + i, mask, half);
}

// Values of bfloat16 times 2**-n, by n << 7 in each lane of 16 bits: for what stays normal. 0 and NaN stay, too.
inline __m512i lowered(__m512i values, __m512i by) {
  const __m512i magnitude = _mm512_and_si512(values, _mm512_set1_epi16(0x7FFF));
  const __m512i less_one = _mm512_sub_epi16(magnitude, _mm512_set1_epi16(1));
  const __mmask32 finite = _mm512_cmplt_epu16_mask(less_one, _mm512_set1_epi16(0x7F7F));  // and not 0
  return _mm512_mask_sub_epi16(values, finite, values, by);
}

// sum + a . b, in each lane of two pairs of bfloat16.
inline __m512 dot(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

}  // namespace
}  // namespace octoscale
