// The casts of simd.h with a scale for each group of columns: of many vectors, of a few, or of one value.
#pragma once

#include <algorithm>

#include "cast/simd.h"
#include "common/pieces.h"

namespace octoscale {
namespace {

// A group of one column: the maxima of a row stay in vectors.
template <class V, Float T>
void observe_columns(const char* x, int64_t n, uint32_t* amax_bits) {
  int64_t i = 0;
  for (; i + V::lanes <= n; i += V::lanes) {
    const char* so_far = reinterpret_cast<const char*>(amax_bits + i);
    const auto magnitude = V::magnitude(V::template load<T>(x + i * size_of(T)));
    V::store(reinterpret_cast<uint8_t*>(amax_bits + i), V::max(V::template load<Float::f32>(so_far), magnitude));
  }
  for (; i < n; ++i) amax_bits[i] = std::max(amax_bits[i], to_bits(load<T>(x, i)) & magnitude_bits);
}

template <class V>
void observe_groups_any(const Tile& tile, uint32_t* amax_bits) {
  with_float(tile.type, [&](auto T) {
    constexpr int64_t size = size_of(T.value);
    for (int64_t r = 0; r < tile.num_rows; ++r) {
      const char* x = static_cast<const char*>(tile.x) + r * tile.row_stride * size;
      if (tile.group == 1) {
        observe_columns<V, T.value>(x, tile.num_cols, amax_bits);
        continue;
      }
      for (int64_t c = 0, g = 0; c < tile.num_cols; c += tile.group, ++g) {
        const int64_t n = std::min(tile.group, tile.num_cols - c);
        amax_bits[g] = std::max(amax_bits[g], observe_vectors<V, T.value>(x + c * size, n));
      }
    }
  });
}

template <class V>
inline typename V::Real load_scales(const float* scales) {
  return V::real(V::template load<Float::f32>(reinterpret_cast<const char*>(scales)));
}

// n values -> codes. scale_at(i): the scales of the block from value i on, as encode_block takes them.
template <class V, Float T, Fp8 F, bool tame, class ScaleAt>
void encode_row(const char* x, int64_t n, ScaleAt scale_at, int64_t ahead, uint8_t* codes, Counts* counts) {
  constexpr int64_t block = 4 * V::lanes, size = size_of(T), cache_line = 64;
  int64_t i = 0;
  for (; i + block <= n; i += block) {
    for (int64_t byte = 0; byte < block * size; byte += cache_line) __builtin_prefetch(x + i * size + ahead + byte);
    encode_block<V, T, F, tame>(x + i * size, scale_at(i), codes + i, counts);
  }
  if (i < n) encode_rest<V, T, F, tame>(x + i * size, n - i, scale_at(i), codes + i, counts);
}

// A row of a tile. A group of more than one column and less than a block is half of one, or a run of its own.
template <class V, Float T, Fp8 F, bool tame>
void encode_row_of(const Tile& tile, const char* x, const float* scales, int64_t ahead, uint8_t* codes,
                   Counts* counts) {
  constexpr int64_t lanes = V::lanes;
  const int64_t n = tile.num_cols, group = tile.group;
  if (group == 1) {
    const auto scale_at = [=](int64_t i) {
      return [=](int part) {
        const int64_t first = i + part * lanes;
        if (first + lanes <= n) return load_scales<V>(scales + first);
        alignas(64) float few[lanes] = {};
        for (int64_t lane = 0; lane < n - first; ++lane) few[lane] = scales[first + lane];
        return load_scales<V>(few);
      };
    };
    return encode_row<V, T, F, tame>(x, n, scale_at, ahead, codes, counts);
  }
  if (group == 2 * lanes) {  // half of a block
    const auto scale_at = [=](int64_t i) {
      return [=](int part) { return V::set(scales[std::min(i + part * lanes, n - 1) / (2 * lanes)]); };
    };
    return encode_row<V, T, F, tame>(x, n, scale_at, ahead, codes, counts);
  }
  for (int64_t c = 0, g = 0; c < n; c += group, ++g) {
    const auto one = V::set(scales[g]);
    const auto scale_at = [one](int64_t) { return [one](int) { return one; }; };
    encode_row<V, T, F, tame>(x + c * size_of(T), std::min(group, n - c), scale_at, ahead, codes + c, counts);
  }
}

template <class V>
void encode_groups_any(const Tile& tile, Fp8 format, const float* scales, bool tame, int64_t ahead, uint8_t* codes,
                       int64_t code_stride, Counts* counts) {
  Counts local;
  Counts* found = counts ? &local : nullptr;
  with_float(tile.type, [&](auto T) {
    with_format(format, [&](auto F) {
      for (int64_t r = 0; r < tile.num_rows; ++r) {
        const char* x = static_cast<const char*>(tile.x) + r * tile.row_stride * size_of(T.value);
        uint8_t* to = codes + r * code_stride;
        if (tame) encode_row_of<V, T.value, F.value, true>(tile, x, scales, ahead, to, found);
        else encode_row_of<V, T.value, F.value, false>(tile, x, scales, ahead, to, found);
      }
    });
  });
  if (counts) add(counts, local);
}

}  // namespace
}  // namespace octoscale
