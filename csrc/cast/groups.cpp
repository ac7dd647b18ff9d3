// Tiles that stay in a cache, each of whole groups; rows longer than that as tensors of their own.

#include "cast/groups.h"

#include <algorithm>
#include <vector>

#include "common/constants.h"
#include "common/pages.h"
#include "common/pieces.h"
#include "common/pool.h"

namespace octoscale {
namespace {

constexpr int64_t values_of_tile = 1 << 12;   // 16 KiB of float32; the next tile is fetched beside it
constexpr int64_t least_columns = 64;         // of groups that stand upright: whole cache lines
constexpr int64_t too_long = 1 << 18;         // values in a row of one group: beyond a second-level cache
constexpr int64_t least_per_task = 1 << 15;   // as in quantize.cpp

const char* at(const void* x, Float type, int64_t i) { return static_cast<const char*>(x) + i * size_of(type); }

bool is_tame(uint32_t amax_bits, float scale, const Format& format) {
  return amax_bits < infinity_bits && from_bits(amax_bits) * scale <= from_bits(format.max_bits());
}

// A tensor cut into tiles: bands of rows that share groups, and in each of them columns.
struct Cut {
  GroupSize size;
  int64_t groups_per_band, cols_per_tile, tiles_per_band, num_tiles;
};

Cut cut(Rows rows, GroupSize size) {
  const int64_t groups = ceil_div(rows.num_cols, size.cols), wanted = values_of_tile / size.rows;
  const int64_t cols = round_up(std::max(wanted, size.cols == 1 ? least_columns : size.cols), size.cols);
  const int64_t tiles = ceil_div(rows.num_cols, cols);
  return {size, groups, cols, tiles, tiles * ceil_div(rows.num_rows, size.rows)};
}

// A tile: where it lies, and the first of its groups.
struct Place {
  int64_t row, column, num_rows, num_cols, group;
};

Place place_of(Rows rows, const Cut& cut, int64_t number) {
  const int64_t band = number / cut.tiles_per_band, row = band * cut.size.rows;
  const int64_t column = number % cut.tiles_per_band * cut.cols_per_tile;
  const int64_t num_rows = std::min(cut.size.rows, rows.num_rows - row);
  const int64_t num_cols = std::min(cut.cols_per_tile, rows.num_cols - column);
  return {row, column, num_rows, num_cols, band * cut.groups_per_band + column / cut.size.cols};
}

// Tiles that may hold groups of several rows, where nothing lies between these.
Rows joined(Rows rows, GroupSize size) {
  const int64_t num_values = rows.num_rows * rows.num_cols;
  const bool can = size.rows == 1 && rows.row_stride == rows.num_cols && rows.num_cols % size.cols == 0;
  return can ? Rows{1, num_values, num_values} : rows;
}

int num_shares(Rows rows, int num_threads) {
  const int64_t wanted = rows.num_rows * rows.num_cols / least_per_task;
  return static_cast<int>(std::clamp<int64_t>(wanted, 1, std::max(num_threads, 1)));
}

// The work of one thread, with memory for the scales of a tile.
class Caster {
 public:
  Caster(const CastKernels& kernels, const void* x, Float type, Rows rows, const Cut& cut,
         const GroupEncoding& encoding)
      : kernels_(kernels), x_(x), type_(type), rows_(rows), cut_(cut), encoding_(encoding),
        amax_bits_(ceil_div(cut.cols_per_tile, cut.size.cols)), scales_(amax_bits_.size()) {}

  void cast(int64_t number, Counts* counts) {
    const Place place = place_of(rows_, cut_, number);
    const char* values = at(x_, type_, place.row * rows_.row_stride + place.column);
    const Tile tile = {values, type_, place.num_rows, place.num_cols, rows_.row_stride, cut_.size.cols};
    const int64_t num_groups = ceil_div(place.num_cols, cut_.size.cols);
    std::fill_n(amax_bits_.begin(), num_groups, 0u);
    kernels_.observe_groups(tile, amax_bits_.data());
    const bool tame = choose(place.group, num_groups);
    const int64_t ahead = cut_.tiles_per_band == 1 ? cut_.size.rows * rows_.row_stride : cut_.cols_per_tile;
    kernels_.encode_groups(tile, encoding_.format, scales_.data(), tame, ahead * size_of(type_),
                           encoding_.codes + place.row * rows_.num_cols + place.column, rows_.num_cols, counts);
  }

 private:
  // The scales of groups from `first` on. Whether no value needs more than rounding.
  bool choose(int64_t first, int64_t num_groups) {
    const Format format = row(encoding_.format);
    bool tame = true;
    for (int64_t i = 0; i < num_groups; ++i) {
      const int bias = amax_to_scale_bias(amax_bits_[i], format, encoding_.rule);
      scales_[i] = power_of_two(bias);
      tame &= is_tame(amax_bits_[i], scales_[i], format);
      encoding_.amaxes[first + i] = from_bits(amax_bits_[i]);
      encoding_.scale_biases[first + i] = bias;
    }
    return tame;
  }

  const CastKernels& kernels_;
  const void* x_;
  Float type_;
  Rows rows_;
  const Cut& cut_;
  const GroupEncoding& encoding_;
  std::vector<uint32_t> amax_bits_;
  std::vector<float> scales_;
};

// out[i] = values[i] * 2**-scale_biases[i], rounded once.
void scale_each(const float* values, int64_t n, const int32_t* scale_biases, void* out, Float type) {
  with_float(type, [&](auto T) {
    for (int64_t i = 0; i < n; ++i) store<T.value>(out, i, values[i] * power_of_two(-scale_biases[i]));
  });
}

struct alignas(128) Found {
  Counts counts;
};

// Each row is one group, and none stays in a cache: each by all threads, in two visits.
Counts cast_long_rows(Isa isa, const void* x, Float type, Rows rows, const GroupEncoding& encoding, int num_threads) {
  Counts counts;
  const Rows one = {1, rows.num_cols, rows.num_cols};
  for (int64_t r = 0; r < rows.num_rows; ++r) {
    const void* values = at(x, type, r * rows.row_stride);
    const uint32_t amax_bits = observe(isa, values, type, one, false, num_threads).amax_bits;
    const int bias = amax_to_scale_bias(amax_bits, row(encoding.format), encoding.rule);
    const Encoding row_encoding = {encoding.format, bias, encoding.codes + r * rows.num_cols, nullptr, encoding.counts};
    add(&counts, encode(isa, values, type, one, amax_bits, row_encoding, num_threads));
    encoding.amaxes[r] = from_bits(amax_bits);
    encoding.scale_biases[r] = bias;
  }
  return counts;
}

}  // namespace

Counts cast_groups(Isa isa, const void* x, Float type, Rows rows, GroupSize size, const GroupEncoding& encoding,
                   int num_threads) {
  prefer_huge_pages(encoding.codes, rows.num_rows * rows.num_cols);
  if (size.rows == 1 && size.cols == rows.num_cols && size.cols >= too_long)
    return cast_long_rows(isa, x, type, rows, encoding, num_threads);
  rows = joined(rows, size);
  const Cut tiles = cut(rows, size);
  const int num_tasks = num_shares(rows, num_threads);
  std::vector<Found> parts(num_tasks);
  parallel_for(num_tasks, num_threads, [&](int task) {
    Caster caster(cast_kernels(isa), x, type, rows, tiles, encoding);
    Counts counts;
    const int64_t last = tiles.num_tiles * (task + 1) / num_tasks;
    for (int64_t tile = tiles.num_tiles * task / num_tasks; tile < last; ++tile)
      caster.cast(tile, encoding.counts ? &counts : nullptr);
    parts[task].counts = counts;
  });
  Counts all;
  for (const Found& part : parts) add(&all, part.counts);
  return all;
}

void decode_groups(Isa isa, const uint8_t* codes, Rows rows, GroupSize size, Fp8 format, const int32_t* scale_biases,
                   void* out, Float type, int num_threads) {
  prefer_huge_pages(out, rows.num_rows * rows.num_cols * size_of(type));
  const CastKernels& kernels = cast_kernels(isa);
  rows = joined(rows, size);
  const Cut tiles = cut(rows, size);
  const int num_tasks = num_shares(rows, num_threads);
  parallel_for(num_tasks, num_threads, [&](int task) {
    std::vector<float> values(size.cols == 1 ? tiles.cols_per_tile : 0);
    const int64_t last = tiles.num_tiles * (task + 1) / num_tasks;
    for (int64_t tile = tiles.num_tiles * task / num_tasks; tile < last; ++tile) {
      const Place place = place_of(rows, tiles, tile);
      for (int64_t r = place.row; r < place.row + place.num_rows; ++r) {
        const uint8_t* from = codes + r * rows.row_stride + place.column;
        char* to = static_cast<char*>(out) + (r * rows.num_cols + place.column) * size_of(type);
        const int32_t* biases = scale_biases + place.group;
        if (size.cols == 1) {
          kernels.decode(from, place.num_cols, format, 0, values.data(), Float::f32);
          scale_each(values.data(), place.num_cols, biases, to, type);
          continue;
        }
        for (int64_t c = 0; c < place.num_cols; c += size.cols)
          kernels.decode(from + c, std::min(size.cols, place.num_cols - c), format, *biases++,
                         to + c * size_of(type), type);
      }
    }
  });
}

}  // namespace octoscale
