// The innermost block of products of many rows, for AMX: 32 x 32 sums in four of the eight tile registers.
//
// A tile is 1 KiB: of a, 16 rows x 16 pairs; of b, 16 pairs x 16 columns; of sums, 16 x 16 float32. All are stored
// whole and one after the other, so that none straddles another's lines in the cache; what is not there is zeros.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "product/pack_avx512.h"

namespace octoscale {
namespace {

constexpr int64_t tile_size = 256;  // in numbers of 32 bits
constexpr int64_t tile_side = 16, block_side = 2 * tile_side, block_size = 4 * tile_size;

// The shape of the tile registers, as the CPU reads it.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileShapes whole_tiles{};

// While it lives, this thread's tile registers are whole tiles.
class TileRegisters {
 public:
  TileRegisters() { _tile_loadconfig(&whole_tiles); }
  ~TileRegisters() { _tile_release(); }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

// 16 rows of a tile as its columns.
inline void store_transposed(__m512i (&rows)[tile_side], uint32_t* tile) {
  transpose_16x16(rows);
  for (int64_t i = 0; i < tile_side; ++i) _mm512_store_si512(tile + i * tile_side, rows[i]);
}

// Two rows of tiles of a, two columns of tiles of b: `stride` numbers apart, the tiles of each along k in a row.
struct TileRows {
  const uint32_t* data;
  int64_t stride;
};

// sums += a @ b, over num_tiles tiles along k; sums: its four tiles, row by row. `fresh`: they begin at zero.
inline void multiply_block(TileRows a, TileRows b, int64_t num_tiles, float* sums, bool fresh) {
  __asm__ volatile("" ::: "memory");  // GCC's intrinsics do not say that they read memory
  if (fresh) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, 64);
    _tile_loadd(1, sums + tile_size, 64);
    _tile_loadd(2, sums + 2 * tile_size, 64);
    _tile_loadd(3, sums + 3 * tile_size, 64);
  }
  for (int64_t k = 0; k < num_tiles * tile_size; k += tile_size) {
    _tile_loadd(4, a.data + k, 64);
    _tile_loadd(6, b.data + k, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b.data + b.stride + k, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a.data + a.stride + k, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + tile_size, 64);
  _tile_stored(2, sums + 2 * tile_size, 64);
  _tile_stored(3, sums + 3 * tile_size, 64);
  __asm__ volatile("" ::: "memory");
}

// Row r, columns 16 * half onwards of a block of sums.
inline float* row_of_block(float* sums, int64_t r, int64_t half) {
  return sums + (r / tile_side * 2 + half) * tile_size + r % tile_side * tile_side;
}

}  // namespace
}  // namespace octoscale
