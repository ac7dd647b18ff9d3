// Few rows against a weight in codes, for AVX-512: the weight is read once, at the speed of memory.
//
// 64 codes become two vectors of bfloat16 by table look-ups, in the order that costs least. The rows of a are brought
// into that order once, as bfloat16 padded with zeros, and stay in cache; vdpbf16ps multiplies pairs and sums in
// float32.

#include <immintrin.h>

#include <algorithm>

#include "common/decode_avx512.h"
#include "common/lanes_avx512.h"
#include "common/pieces.h"
#include "common/scratch.h"
#include "product/columns.h"
#include "product/finish_avx512.h"

namespace octoscale {
namespace {

// The weight is fetched twice: early, from another page, into the second-level cache, whose misses outnumber those
// that the first level can have open; and 512 bytes ahead into the first. Either alone is up to a third slower
// (docs/LOG.md).
template <int64_t later>
inline void prefetch(const void* from) {
  _mm_prefetch(static_cast<const char*>(from) + 512, _MM_HINT_T0);
  _mm_prefetch(static_cast<const char*>(from) + later, _MM_HINT_T1);
}

using Values = const __m512i*;  // a row of a: two vectors for each 64 values

// 64 bfloat16 values, in order or in the order of DecodeTable16::decode.
inline void store_pair(__m512i low, __m512i high, bool in_order, __m512i* out) {
  out[0] = in_order ? low : _mm512_shuffle_i64x2(low, high, 0x88);
  out[1] = in_order ? high : _mm512_shuffle_i64x2(low, high, 0xDD);
}

// Row r of a, padded with zeros to whole blocks of 64; in the order of decoding, unless the weight is bfloat16 itself.
void arrange_row(const Matrix& a, int64_t r, int64_t num_blocks, bool in_order, __m512i* out) {
  with_table(a.format, 1.0f, Float::bf16, [&](const auto& table) {
    for (int64_t block = 0; block < num_blocks; ++block) {
      const int64_t n = std::min<int64_t>(64, a.cols - 64 * block);
      const int64_t first = r * a.row_stride + 64 * block * a.col_stride;
      if (a.is_bf16) {
        const uint16_t* from = static_cast<const uint16_t*>(a.data) + first;
        const __m512i low = load_halves(from, a.col_stride, n);
        store_pair(low, load_halves(from + 32 * a.col_stride, a.col_stride, n - 32), in_order, out + 2 * block);
      } else {
        alignas(64) uint8_t codes[64];
        const uint8_t* from = static_cast<const uint8_t*>(a.data) + first;
        if (a.col_stride != 1)
          for (int64_t i = 0; i < n; ++i) codes[i] = from[i * a.col_stride];
        table.decode(load_codes(a.col_stride == 1 ? from : codes, n), out[2 * block], out[2 * block + 1]);
      }
    }
  });
}

// The dot products of `num_weights` rows of codes with M rows of values.
template <int M, int num_weights, class Table>
inline void dot_rows(const Table& table, const uint8_t* codes, int64_t stride, int64_t k, Values x, int64_t x_stride,
                     float (*sums)[M]) {
  // With few sums, each is split in several, so that one multiplication need not wait for the one before.
  constexpr int parts = M * num_weights >= 8 ? 1 : 8 / (M * num_weights);
  __m512 sum[num_weights][M][parts];
  for (auto& weight : sum)
    for (auto& row : weight)
      for (auto& part : row) part = _mm512_setzero_ps();
  const auto add = [&](int64_t i, __mmask64 mask, int turn) {
    __m512i first[num_weights], second[num_weights];
#pragma GCC unroll 4
    for (int w = 0; w < num_weights; ++w) {
      const uint8_t* from = codes + w * stride + i;
      prefetch<6144>(from);
      table.decode(_mm512_maskz_loadu_epi8(mask, from), first[w], second[w]);
    }
    const int part = 2 * turn % parts, other = (2 * turn + 1) % parts;
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Values values = x + m * x_stride + i / 32;
#pragma GCC unroll 4
      for (int w = 0; w < num_weights; ++w) {
        sum[w][m][part] = dot(sum[w][m][part], first[w], values[0]);
        sum[w][m][other] = dot(sum[w][m][other], second[w], values[1]);
      }
    }
  };
  constexpr int turns = parts > 1 ? parts / 2 : 1;
  const __mmask64 all = ~0ull;
  int64_t i = 0;
  for (; i + 64 * turns <= k; i += 64 * turns) {
#pragma GCC unroll 4
    for (int turn = 0; turn < turns; ++turn) add(i + 64 * turn, all, turn);
  }
  for (; i + 64 <= k; i += 64) add(i, all, 0);
  if (i < k) add(i, few_lanes<__mmask64>(k - i), 0);
  for (int w = 0; w < num_weights; ++w)
    for (int m = 0; m < M; ++m) {
      __m512 total = sum[w][m][0];
      for (int part = 1; part < parts; ++part) total = _mm512_add_ps(total, sum[w][m][part]);
      sums[w][m] = _mm512_reduce_add_ps(total);
    }
}

// Rows [r, r + M) of the output, for weights [first, last).
template <int M, class Table>
void stream_rows(const Table& table, const Part& part, int64_t r, int64_t first, int64_t last, Values x,
                 int64_t x_stride) {
  constexpr int num_weights = M == 1 ? 1 : 2;
  const Matrix& b = part.b;
  const uint8_t* codes = static_cast<const uint8_t*>(b.data);
  for (int64_t c = first; c < last; c += 16) {
    const int64_t n = std::min<int64_t>(16, last - c);
    alignas(64) float sums[16][M], columns[M][16] = {};
    int64_t w = 0;
    for (; w + num_weights <= n; w += num_weights)
      dot_rows<M, num_weights>(table, codes + (c + w) * b.col_stride, b.col_stride, b.rows, x, x_stride, sums + w);
    for (; w < n; ++w)
      dot_rows<M, 1>(table, codes + (c + w) * b.col_stride, b.col_stride, b.rows, x, x_stride, sums + w);
    for (int64_t i = 0; i < n; ++i)
      for (int m = 0; m < M; ++m) columns[m][i] = sums[i][m];
    for (int m = 0; m < M; ++m)
      finish(part, r + m, c, _mm512_load_ps(columns[m]), first_lanes<__mmask16>(n));
  }
}

// The dot product of one row of codes with one of values, each run of it times its scale.
template <class Table>
inline float dot_runs(const Table& table, const uint8_t* codes, int64_t k, Values x, const float* scales) {
  static_assert(run_length == 128);
  __m512 total = _mm512_setzero_ps();
  for (int64_t first = 0; first < k; first += run_length) {
    __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    const auto add = [&](int64_t i, __mmask64 mask, int turn) {
      __m512i low, high;
      prefetch<6144>(codes + i);
      table.decode(_mm512_maskz_loadu_epi8(mask, codes + i), low, high);
      sums[2 * turn] = dot(sums[2 * turn], low, x[i / 32]);
      sums[2 * turn + 1] = dot(sums[2 * turn + 1], high, x[i / 32 + 1]);
    };
    const int64_t n = k - first;
    add(first, n >= 64 ? ~0ull : few_lanes<__mmask64>(n), 0);
    if (n > 64) add(first + 64, n >= 128 ? ~0ull : few_lanes<__mmask64>(n - 64), 1);
    const __m512 sum = _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
    total = _mm512_fmadd_ps(sum, _mm512_set1_ps(scales[first / run_length]), total);
  }
  return _mm512_reduce_add_ps(total);
}

// Columns [first, last) of a part with runs, whose a has one row.
template <class Table>
void stream_runs(const Table& table, const Part& part, int64_t first, int64_t last, Values x) {
  for (int64_t c = first; c < last; c += 16) {
    const int64_t n = std::min<int64_t>(16, last - c);
    alignas(64) float sums[16] = {};
    for (int64_t i = 0; i < n; ++i)
      sums[i] = dot_runs(table, static_cast<const uint8_t*>(part.b.data) + (c + i) * part.b.col_stride, part.b.rows, x,
                         part.scales.runs + (c + i) / run_length * part.scales.stride);
    finish(part, 0, c, _mm512_load_ps(sums), first_lanes<__mmask16>(n));
  }
}

template <class Table>
void stream_any(const Table& table, const Part& part, int64_t r, int64_t num_rows, int64_t first, int64_t last,
                Values x, int64_t x_stride) {
  switch (num_rows) {
    case 1: return stream_rows<1>(table, part, r, first, last, x, x_stride);
    case 2: return stream_rows<2>(table, part, r, first, last, x, x_stride);
    case 3: return stream_rows<3>(table, part, r, first, last, x, x_stride);
    case 4: return stream_rows<4>(table, part, r, first, last, x, x_stride);
    case 5: return stream_rows<5>(table, part, r, first, last, x, x_stride);
    case 6: return stream_rows<6>(table, part, r, first, last, x, x_stride);
    case 7: return stream_rows<7>(table, part, r, first, last, x, x_stride);
    default: return stream_rows<8>(table, part, r, first, last, x, x_stride);
  }
}

// The dot product of a weight in bfloat16 with a row of values in order.
inline float dot_bf16(const uint16_t* weight, int64_t k, Values x) {
  __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  int64_t i = 0;
  for (; i + 128 <= k; i += 128) {
#pragma GCC unroll 4
    for (int part = 0; part < 4; ++part) {
      const uint16_t* from = weight + i + 32 * part;
      prefetch<4096>(from);
      sums[part] = dot(sums[part], _mm512_loadu_si512(from), x[i / 32 + part]);
    }
  }
  for (; i + 32 <= k; i += 32) sums[0] = dot(sums[0], _mm512_loadu_si512(weight + i), x[i / 32]);
  if (i < k) sums[0] = dot(sums[0], load_halves(weight + i, 1, k - i), x[i / 32]);
  return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
}

// Columns [first, last) of the output, for a weight in bfloat16.
void stream_bf16(const Part& part, int64_t num_rows, int64_t first, int64_t last, Values x, int64_t x_stride) {
  const Matrix& b = part.b;
  alignas(64) float sums[max_stream_rows][16] = {};
  for (int64_t c = first; c < last; c += 16) {
    const int64_t n = std::min<int64_t>(16, last - c);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t r = 0; r < num_rows; ++r)
        sums[r][i] = dot_bf16(static_cast<const uint16_t*>(b.data) + (c + i) * b.col_stride, b.rows, x + r * x_stride);
    for (int64_t r = 0; r < num_rows; ++r)
      finish(part, r, c, _mm512_load_ps(sums[r]), first_lanes<__mmask16>(n));
  }
}

// Columns [first, last) of one part.
void stream_share(int64_t num_rows, const Part& part, int64_t first, int64_t last, Values x, int64_t x_stride) {
  constexpr int64_t some = 64;  // weights: small, so that several groups of rows find them in cache
  if (part.b.is_bf16) return stream_bf16(part, num_rows, first, last, x, x_stride);
  with_table(part.b.format, 1.0f, Float::bf16, [&](const auto& table) {
    if (part.scales.runs) return stream_runs(table, part, first, last, x);
    for (int64_t c = first; c < last; c += some)
      for (int64_t r = 0; r < num_rows; r += 8)
        stream_any(table, part, r, std::min<int64_t>(8, num_rows - r), c, std::min(last, c + some), x + r * x_stride,
                   x_stride);
  });
}

}  // namespace

void stream_avx512(const Matrix& a, const Part* parts, int num_parts, int num_threads) {
  static thread_local Scratch<uint16_t> scratch;
  const int64_t num_blocks = ceil_div(a.cols, 64), stride = 2 * num_blocks;
  __m512i* x = reinterpret_cast<__m512i*>(scratch.reserve(std::max<int64_t>(1, 32 * a.rows * stride)));
  for (int64_t r = 0; r < a.rows; ++r) arrange_row(a, r, num_blocks, parts[0].b.is_bf16, x + r * stride);
  deal_columns(a.rows, parts, num_parts, num_threads, [&](const Part& part, int64_t first, int64_t last) {
    stream_share(a.rows, part, first, last, x, stride);
  });
}

}  // namespace octoscale
