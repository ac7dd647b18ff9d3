// Tiles that stay in a cache, each of whole groups; rows longer than that as tensors of their own.

#include "cast/groups.h"

#include <algorithm>
#include <vector>

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

// The work of one thread, with memory for the scales of a tile.
class Caster {
 public:
  Caster(const CastKernels& kernels, const void* x, Float type, Rows rows, const Cut& cut,
         const GroupEncoding& encoding)
      : kernels_(kernels), x_(x), type_(type), rows_(rows), cut_(cut), encoding_(encoding),
        amax_bits_(ceil_div(cut.cols_per_tile, cut.size.cols)), scales_(amax_bits_.size()) {}

  void cast(int64_t number, Counts* counts) {
    const int64_t band = number / cut_.tiles_per_band, row = band * cut_.size.rows;
    const int64_t column = number % cut_.tiles_per_band * cut_.cols_per_tile;
    const int64_t num_rows = std::min(cut_.size.rows, rows_.num_rows - row);
    const int64_t num_cols = std::min(cut_.cols_per_tile, rows_.num_cols - column);
    const Tile tile = {at(x_, type_, row * rows_.row_stride + column), type_, num_rows, num_cols, rows_.row_stride,
                       cut_.size.cols};
    const int64_t num_groups = ceil_div(num_cols, cut_.size.cols);
    std::fill_n(amax_bits_.begin(), num_groups, 0u);
    kernels_.observe_groups(tile, amax_bits_.data());
    const bool tame = choose(band * cut_.groups_per_band + column / cut_.size.cols, num_groups);
    const int64_t ahead = cut_.tiles_per_band == 1 ? cut_.size.rows * rows_.row_stride : cut_.cols_per_tile;
    kernels_.encode_groups(tile, encoding_.format, scales_.data(), tame, ahead * size_of(type_),
                           encoding_.codes + row * rows_.num_cols + column, rows_.num_cols, counts);
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
  const int64_t num_values = rows.num_rows * rows.num_cols;
  prefer_huge_pages(encoding.codes, num_values);
  if (size.rows == 1 && size.cols == rows.num_cols && size.cols >= too_long)
    return cast_long_rows(isa, x, type, rows, encoding, num_threads);
  if (size.rows == 1 && rows.row_stride == rows.num_cols && rows.num_cols % size.cols == 0)
    rows = {1, num_values, num_values};  // a tile may hold groups of several rows
  const Cut tiles = cut(rows, size);
  const int num_tasks = static_cast<int>(std::clamp<int64_t>(num_values / least_per_task, 1, std::max(num_threads, 1)));
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

}  // namespace octoscale
