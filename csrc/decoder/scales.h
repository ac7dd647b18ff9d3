// The scales of a weight and those of its input's runs, joined into what a stream of the weight applies.
#pragma once

#include <algorithm>
#include <vector>

#include "common/pieces.h"
#include "common/scalar.h"
#include "decoder/layer.h"
#include "product/matmul.h"

namespace octoscale {
namespace {

// How far scale_biases may reach along a sum: as WIDEST of kernels/groups.py, so that no product leaves float32.
constexpr int widest = 92;

// The scale_biases of lines of runs, each as that of its line, the least one, and what it lies above it.
struct SplitBiases {
  std::vector<int32_t> bases, inner;

  // biases: [num_lines][num_runs]. Returns the largest of `inner`.
  int split(const int32_t* biases, int64_t num_lines, int64_t num_runs) {
    bases.resize(static_cast<size_t>(num_lines));
    inner.resize(static_cast<size_t>(num_lines * num_runs));
    int reach = 0;
    for (int64_t line = 0; line < num_lines; ++line) {
      const int32_t* first = biases + line * num_runs;
      bases[line] = *std::min_element(first, first + num_runs);
      for (int64_t i = 0; i < num_runs; ++i) {
        inner[line * num_runs + i] = first[i] - bases[line];
        reach = std::max(reach, first[i] - bases[line]);
      }
    }
    return reach;
  }
};

// The factors of each output, with the one of all in them; `made` holds them where they are not the weight's own.
inline const float* factors_of_rows(const Linear& linear, std::vector<float>& made) {
  const WeightScales& own = linear.scales;
  if (own.reach != WeightScales::Reach::row || !own.factors) return nullptr;
  if (own.factor == 1.0f) return own.factors;
  made.resize(static_cast<size_t>(linear.num_out));
  for (int64_t c = 0; c < linear.num_out; ++c) made[c] = own.factors[c] * own.factor;
  return made.data();
}

// Joins the scales of one linear layer; what it made lives here while its part is streamed.
class JoinedScales {
 public:
  // input: the scale_bias of the input, of which there is one, or one for each run. False: they lie too far apart.
  bool join(const Linear& linear, const std::vector<int32_t>& input, bool has_runs, Part& part) {
    using Reach = WeightScales::Reach;
    const WeightScales& own = linear.scales;
    const bool is_block = own.reach == Reach::block, is_row = own.reach == Reach::row;
    part.scales = {is_row ? own.biases : nullptr, factors_of_rows(linear, factors_), own.factor, nullptr, 0};
    part.out.scale_bias = input[0] + (own.reach == Reach::tensor ? own.bias : 0);
    if (!is_block && !has_runs) return true;
    const int64_t num_runs = ceil_div(linear.num_in, run_length);
    const int64_t num_bands = is_block ? ceil_div(linear.num_out, run_length) : 1;
    runs_.resize(static_cast<size_t>(num_bands * num_runs));
    bases_.resize(static_cast<size_t>(num_bands));
    for (int64_t band = 0; band < num_bands; ++band) {
      const int64_t at = band * num_runs;
      const auto bias = [&](int64_t i) { return input[has_runs ? i : 0] + (is_block ? own.biases[at + i] : 0); };
      int low = bias(0), high = low;
      for (int64_t i = 1; i < num_runs; ++i) low = std::min(low, bias(i)), high = std::max(high, bias(i));
      if (high - low > widest) return false;
      for (int64_t i = 0; i < num_runs; ++i)
        runs_[at + i] = power_of_two(low - bias(i)) * (is_block && own.factors ? own.factors[at + i] : 1.0f);
      bases_[band] = low;
    }
    part.scales.runs = runs_.data();
    part.scales.stride = is_block ? num_runs : 0;
    if (is_block) {
      spread_bases(linear.num_out);
      part.scales.biases = columns_.data();
      part.out.scale_bias = 0;
    } else {
      part.out.scale_bias += bases_[0] - input[0];
    }
    return true;
  }

 private:
  void spread_bases(int64_t num_out) {
    columns_.resize(static_cast<size_t>(num_out));
    for (int64_t c = 0; c < num_out; ++c) columns_[c] = bases_[c / run_length];
  }

  std::vector<float> runs_, factors_;
  std::vector<int32_t> bases_, columns_;
};

}  // namespace
}  // namespace octoscale
