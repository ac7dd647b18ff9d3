// One layer: its casts and products, attention, and the loops between them.

#include "decoder/layer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "cast/groups.h"
#include "cast/quantize.h"
#include "common/pieces.h"
#include "common/pool.h"
#include "common/scalar.h"
#include "common/scratch.h"
#include "decoder/scales.h"

namespace octoscale {
namespace {

const DecoderKernels& kernels_of([[maybe_unused]] Isa isa) {
#if defined(OCTOSCALE_AMX)
  if (isa == Isa::amx) return decoder_amx;
#endif
#if defined(OCTOSCALE_X86)
  if (isa >= Isa::avx512) return decoder_avx512;
  if (isa == Isa::avx2) return decoder_avx2;
#endif
  return decoder_scalar;
}

constexpr uint16_t nan_bf16 = 0x7FC0;

// Rows are independent of each other: body(row), on as many threads as there is work for.
template <class Body>
void for_each_row(int64_t num_rows, int num_threads, Body&& body) {
  constexpr int64_t run = 16;
  if (num_rows == 1) return body(0);
  parallel_for(static_cast<int>(ceil_div(num_rows, run)), num_threads, [&](int task) {
    for (int64_t row = run * task; row < std::min(num_rows, run * (task + 1)); ++row) body(row);
  });
}

// The products of some rows with several weights.
class Products {
 public:
  Products(Isa isa, int64_t num_rows, int num_threads) : isa_(isa), num_rows_(num_rows), num_threads_(num_threads) {}

  // outs[i] = linears[i](x). Linear layers in a row with the same rule share a cast and, if the rows are few, one call
  // of the threads.
  template <size_t n>
  void run(const uint16_t* x, const Linear* const (&linears)[n], uint16_t* const (&outs)[n], int first_number) {
    for (size_t i = 0; i < n;) {
      size_t end = i + 1;
      while (end < n && linears[end]->rule == linears[i]->rule) ++end;
      run_same(x, linears + i, outs + i, static_cast<int>(end - i), first_number + static_cast<int>(i));
      i = end;
    }
  }

  int outcome = done;

 private:
  void run_same(const uint16_t* x, const Linear* const* linears, uint16_t* const* outs, int n, int number) {
    if (outcome == refused) return;
    const Linear& first = *linears[0];
    const bool is_plain = first.rule.kind == InputRule::Kind::none;
    const bool finite = cast(x, first);
    if (!finite && outcome == done) outcome = number;
    Part parts[DecoderLayer::num_linears];
    for (int i = 0; i < n; ++i) {
      const Linear& linear = *linears[i];
      const Matrix weight = {linear.codes, false, linear.format, linear.num_in, linear.num_out, 1, linear.num_in};
      parts[i] = {weight, {outs[i], Float::bf16, linear.num_out, nullptr, Float::bf16, 0}, one_scale};
    }
    const void* data = is_plain ? static_cast<const void*>(x) : codes_.data();
    const Matrix a = {data, is_plain, first.rule.format, num_rows_, first.num_in, first.num_in, 1};
    const bool by_rows = num_rows_ > 1 && wants_scales_of_rows(linears, n);
    if (!(by_rows ? multiply_by_rows(a, linears, parts, n) : multiply(a, linears, parts, n))) outcome = refused;
    if (!finite)
      for (int i = 0; i < n; ++i) std::fill_n(outs[i], num_rows_ * linears[i]->num_out, nan_bf16);
  }

  // Whether the end of a product of many rows has to know more than one power of two.
  static bool wants_scales_of_rows(const Linear* const* linears, int n) {
    return linears[0]->rule.kind >= InputRule::Kind::amax_of_runs ||
           std::any_of(linears, linears + n, [](const Linear* one) {
             return one->scales.reach != WeightScales::Reach::tensor || one->scales.factor != 1.0f;
           });
  }

  // One token, or one scale a tensor. False: the scales lie too far apart.
  bool multiply(const Matrix& a, const Linear* const* linears, Part* parts, int n) {
    const bool has_runs = linears[0]->rule.kind == InputRule::Kind::amax_of_runs;
    JoinedScales joined[DecoderLayer::num_linears];
    for (int i = 0; i < n; ++i)
      if (!joined[i].join(*linears[i], scale_biases_, has_runs, parts[i])) return false;
    if (num_rows_ <= max_stream_rows) stream(isa_, a, parts, n, num_threads_);
    else
      for (int i = 0; i < n; ++i) matmul(isa_, a, parts[i].b, parts[i].out, num_threads_);
    return true;
  }

  // Many tokens, or weights, with more than one scale: each output has that of its row and of its column, and those
  // that change along the sum are inside. False: these lie too far apart.
  bool multiply_by_rows(Matrix a, const Linear* const* linears, const Part* parts, int n) {
    const bool has_runs = linears[0]->rule.kind == InputRule::Kind::amax_of_runs;
    const int64_t num_runs = ceil_div(a.cols, run_length);
    if (scale_biases_.size() == 1) scale_biases_.assign(static_cast<size_t>(num_rows_), scale_biases_[0]);
    const int input_reach = rows_.split(scale_biases_.data(), num_rows_, has_runs ? num_runs : 1);
    if (has_runs) a.inner = {rows_.inner.data(), 1, run_length, num_runs, 1};
    for (int i = 0; i < n; ++i) {
      const WeightScales& scales = linears[i]->scales;
      const int64_t num_out = linears[i]->num_out;
      Matrix weight = parts[i].b;
      const int32_t* columns = scales.biases;
      if (scales.reach == WeightScales::Reach::tensor) {
        column_biases_.assign(static_cast<size_t>(num_out), scales.bias);
        columns = column_biases_.data();
      } else if (scales.reach == WeightScales::Reach::block) {
        const int64_t num_bands = ceil_div(num_out, run_length);
        if (bands_.split(scales.biases, num_bands, num_runs) + input_reach > widest) return false;
        column_biases_.resize(static_cast<size_t>(num_out));
        for (int64_t c = 0; c < num_out; ++c) column_biases_[c] = bands_.bases[c / run_length];
        columns = column_biases_.data();
        weight.inner = {bands_.inner.data(), run_length, run_length, 1, num_runs};
      }
      if (input_reach > widest) return false;
      const float* factors = factors_of_rows(*linears[i], column_factors_);
      const Scales all = {rows_.bases.data(), columns, factors, scales.factor};
      if (!matmul_by_rows(isa_, a, weight, parts[i].out, all, num_threads_)) return false;
    }
    return true;
  }

  // Codes and scale_biases of x, as the rule of a layer wants them; whether all of x is finite.
  bool cast(const uint16_t* x, const Linear& linear) {
    const InputRule& rule = linear.rule;
    const int64_t size = num_rows_ * linear.num_in;
    const Rows all = {1, size, size};
    const bool is_divided = rule.divisor != 1.0f;
    const void* values = is_divided ? static_cast<const void*>(divided(x, size, rule.divisor)) : x;
    const Float type = is_divided ? Float::f32 : Float::bf16;
    const AmaxRule by_amax = {rule.value, false};
    if (rule.kind != InputRule::Kind::none) codes_.resize(std::max(codes_.size(), static_cast<size_t>(size)));
    const bool has_runs = rule.kind == InputRule::Kind::amax_of_runs;
    if (has_runs || (rule.kind == InputRule::Kind::amax_of_rows && num_rows_ > 1)) {
      const int64_t group = has_runs ? run_length : linear.num_in;
      const size_t num_groups = static_cast<size_t>(num_rows_ * ceil_div(linear.num_in, group));
      scale_biases_.resize(num_groups);
      amaxes_.resize(num_groups);
      const GroupEncoding encoding = {rule.format, by_amax, amaxes_.data(), scale_biases_.data(), codes_.data(), false};
      cast_groups(isa_, values, type, {num_rows_, linear.num_in, linear.num_in}, {1, group}, encoding, num_threads_);
      return std::all_of(amaxes_.begin(), amaxes_.end(), [](float amax) { return to_bits(amax) < infinity_bits; });
    }
    const uint32_t amax = observe(isa_, values, type, all, false, num_threads_).amax_bits;
    scale_biases_.assign(1, 0);
    if (rule.kind == InputRule::Kind::none) return amax < infinity_bits;
    const bool is_constant = rule.kind == InputRule::Kind::constant;
    scale_biases_[0] = is_constant ? rule.value : amax_to_scale_bias(amax, row(rule.format), by_amax);
    encode(isa_, values, type, all, amax, {rule.format, scale_biases_[0], codes_.data(), nullptr, false}, num_threads_);
    return amax < infinity_bits;
  }

  const float* divided(const uint16_t* x, int64_t size, float divisor) {
    divided_.resize(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) divided_[i] = bf16_to_float(x[i]) / divisor;
    return divided_.data();
  }

  Isa isa_;
  int64_t num_rows_;
  int num_threads_;
  std::vector<uint8_t> codes_;
  std::vector<int32_t> scale_biases_, column_biases_;
  SplitBiases rows_, bands_;
  std::vector<float> amaxes_, divided_, column_factors_;
};

// The queries, keys and values of new tokens [num_rows, heads, head_dim], and where attention goes.
struct Heads {
  uint16_t *q, *k;
  const uint16_t *v, *cosines, *sines;
  uint16_t* out;
  int64_t num_rows;
};

// Turns the head of a token, and puts its key and value behind those that are there.
void append(const DecoderKernels& kernels, const DecoderLayer& layer, const Heads& heads, const Cached& cache,
            int64_t row, int64_t head) {
  const int64_t dim = layer.head_dim, group = layer.num_heads / layer.num_kv_heads;
  const uint16_t *cosines = heads.cosines + row * dim, *sines = heads.sines + row * dim;
  uint16_t* queries = heads.q + (row * layer.num_heads + head * group) * dim;
  for (int64_t h = 0; h < group; ++h) kernels.rotate(queries + h * dim, cosines, sines, dim);
  const int64_t from = (row * layer.num_kv_heads + head) * dim;
  const int64_t to = head * cache.head_stride + (cache.length + row) * dim;
  kernels.rotate(heads.k + from, cosines, sines, dim);
  std::copy_n(heads.k + from, dim, cache.keys + to);
  std::copy_n(heads.v + from, dim, cache.values + to);
}

// One new token attends to all there are.
void attend_token(const DecoderKernels& kernels, const DecoderLayer& layer, const Heads& heads, const Cached& cache,
                  int num_threads) {
  const int64_t dim = layer.head_dim, group = layer.num_heads / layer.num_kv_heads, length = cache.length + 1;
  const int64_t work = layer.num_heads * dim * length;
  const int most = static_cast<int>(std::clamp<int64_t>(work >> 14, 1, num_threads));  // else a thread costs more
  std::vector<float> scores(static_cast<size_t>(layer.num_heads * length));
  parallel_for(static_cast<int>(layer.num_kv_heads), most, [&](int head) {
    append(kernels, layer, heads, cache, 0, head);
    kernels.attend(heads.q + head * group * dim, cache.keys + head * cache.head_stride,
                   cache.values + head * cache.head_stride, group, dim, length, layer.attention_scale,
                   scores.data() + head * group * length, heads.out + head * group * dim);
  });
}

// Many new tokens attend to themselves and those before them.
void attend_tokens(const DecoderKernels& kernels, const DecoderLayer& layer, const Heads& heads, const Cached& cache,
                   int num_threads) {
  static thread_local Scratch<uint32_t> scratch;
  const int64_t dim = layer.head_dim, length = heads.num_rows, group = layer.num_heads / layer.num_kv_heads;
  const int64_t stride = layer.num_heads * dim, size = round_up(kernels.packed_size(length, dim), 16);
  uint32_t* packed = scratch.reserve(layer.num_kv_heads * size);
  parallel_for(static_cast<int>(layer.num_kv_heads), num_threads, [&](int head) {
    for (int64_t row = 0; row < length; ++row) append(kernels, layer, heads, cache, row, head);
    const int64_t at = head * cache.head_stride;
    kernels.pack_head(cache.keys + at, cache.values + at, length, dim, packed + head * size);
  });
  const int64_t num_blocks = ceil_div(length, attend_rows);
  parallel_for(static_cast<int>(num_blocks * layer.num_heads), num_threads, [&](int task) {
    const int64_t head = task % layer.num_heads, first = task / layer.num_heads * attend_rows;
    const int64_t at = first * stride + head * dim;
    kernels.attend_block(heads.q + at, stride, first, std::min(attend_rows, length - first),
                         packed + head / group * size, length, dim, layer.attention_scale, heads.out + at);
  });
}

}  // namespace

void rms_norm(Isa isa, const uint16_t* x, int64_t num_rows, int64_t n, Norm norm, uint16_t* out) {
  for (int64_t row = 0; row < num_rows; ++row) kernels_of(isa).norm(x + row * n, norm, n, out + row * n);
}

bool serves_rows(Isa isa) { return kernels_of(isa).attend_block != nullptr; }

int step(Isa isa, const DecoderLayer& layer, const uint16_t* x, int64_t num_rows, const uint16_t* cosines,
         const uint16_t* sines, const Cached& cache, uint16_t* out, int num_threads) {
  const DecoderKernels& kernels = kernels_of(isa);
  const int64_t hidden = layer.q.num_in, heads = layer.q.num_out, kv = layer.k.num_out, inner = layer.gate.num_out;
  static thread_local Scratch<uint16_t> scratch;
  uint16_t* next = scratch.reserve(num_rows * (hidden + 2 * heads + 2 * kv + 2 * inner));
  const auto take = [&](int64_t n) { return std::exchange(next, next + num_rows * n); };
  uint16_t *normed = take(hidden), *q = take(heads), *attended = take(heads), *k = take(kv), *v = take(kv);
  uint16_t *gate = take(inner), *up = take(inner);
  const auto each_row = [&](int64_t n, auto&& body) {
    for_each_row(num_rows, num_threads, [&](int64_t row) { body(row * n); });
  };
  Products products(isa, num_rows, num_threads);

  each_row(hidden, [&](int64_t at) { kernels.norm(x + at, layer.norm1, hidden, normed + at); });
  products.run(normed, {&layer.q, &layer.k, &layer.v}, {q, k, v}, 0);
  const Heads new_heads = {q, k, v, cosines, sines, attended, num_rows};
  (num_rows == 1 ? attend_token : attend_tokens)(kernels, layer, new_heads, cache, num_threads);
  products.run(attended, {&layer.o}, {out}, 3);
  each_row(hidden, [&](int64_t at) { kernels.add(out + at, x + at, hidden); });

  each_row(hidden, [&](int64_t at) { kernels.norm(out + at, layer.norm2, hidden, normed + at); });
  products.run(normed, {&layer.gate, &layer.up}, {gate, up}, 4);
  each_row(inner, [&](int64_t at) { kernels.gated(gate + at, up + at, inner, up + at); });
  products.run(up, {&layer.down}, {normed}, 6);
  each_row(hidden, [&](int64_t at) { kernels.add(out + at, normed + at, hidden); });
  return products.outcome;
}

int step_through(Isa isa, const DecoderLayer* const* layers, const Cached* caches, int num_layers, const uint16_t* x,
                 const uint16_t* cosines, const uint16_t* sines, uint16_t* out, int num_threads) {
  static thread_local Scratch<uint16_t> scratch;
  uint16_t* other = scratch.reserve(layers[0]->q.num_in);
  for (int i = 0; i < num_layers; ++i) {
    uint16_t* next = (num_layers - i) % 2 ? out : other;  // the last is out
    const int failed = step(isa, *layers[i], x, 1, cosines, sines, caches[i], next, num_threads);
    if (failed == refused) return refused;
    if (failed != done) return i * DecoderLayer::num_linears + failed;
    x = next;
  }
  return done;
}

}  // namespace octoscale
