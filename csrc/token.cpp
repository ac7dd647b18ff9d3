#include "token.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "formats.h"
#include "pool.h"
#include "scalar.h"
#include "scratch.h"

namespace octoscale {
namespace {

const TokenKernels& token_kernels(Isa isa) {
#if defined(OCTOSCALE_X86)
  if (isa == Isa::avx512) return token_avx512;
  if (isa == Isa::avx2) return token_avx2;
#endif
  return (void)isa, token_scalar;
}

constexpr uint16_t nan_bf16 = 0x7FC0;

// The products of one vector with several weights.
class Products {
 public:
  Products(Isa isa, int num_threads) : isa_(isa), num_threads_(num_threads) {}

  // outs[i] = linears[i](x). Linear layers in a row with the same rule share a cast, and one call of the threads.
  template <size_t n>
  void run(const uint16_t* x, const Linear* const (&linears)[n], uint16_t* const (&outs)[n], int first_number) {
    for (size_t i = 0; i < n;) {
      size_t end = i + 1;
      while (end < n && linears[end]->rule == linears[i]->rule) ++end;
      run_same(x, linears + i, outs + i, static_cast<int>(end - i), first_number + static_cast<int>(i));
      i = end;
    }
  }

  int first_nonfinite = -1;

 private:
  void run_same(const uint16_t* x, const Linear* const* linears, uint16_t* const* outs, int n, int number) {
    const Linear& first = *linears[0];
    const bool is_plain = first.rule.kind == InputRule::Kind::none;
    int scale_bias = 0;
    const bool finite = is_plain ? observe(x, first.num_in) < infinity_bits : cast(x, first, &scale_bias);
    if (!finite && first_nonfinite < 0) first_nonfinite = number;
    Part parts[DecoderLayer::num_linears];
    for (int i = 0; i < n; ++i) {
      const Linear& linear = *linears[i];
      const Matrix weight = {linear.codes, false, linear.format, linear.num_in, linear.num_out, 1, linear.num_in};
      parts[i] = {weight, {outs[i], Float::bf16, linear.num_out, nullptr, Float::bf16, scale_bias + linear.scale_bias}};
    }
    const void* data = is_plain ? static_cast<const void*>(x) : codes_.data();
    const Matrix a = {data, is_plain, first.rule.format, 1, first.num_in, first.num_in, 1};
    stream(isa_, a, parts, n, num_threads_);
    if (!finite)
      for (int i = 0; i < n; ++i) std::fill_n(outs[i], linears[i]->num_out, nan_bf16);
  }

  uint32_t observe(const uint16_t* x, int64_t n) const {
    return cast_kernels(isa_).observe(x, Float::bf16, n, nullptr);
  }

  // Codes of x; whether all of x is finite.
  bool cast(const uint16_t* x, const Linear& linear, int* scale_bias) {
    const InputRule& rule = linear.rule;
    const uint32_t amax = observe(x, linear.num_in);
    const bool is_constant = rule.kind == InputRule::Kind::constant;
    *scale_bias = is_constant ? rule.value : amax_to_scale_bias(amax, rule.format, rule.value);
    codes_.resize(std::max(codes_.size(), static_cast<size_t>(linear.num_in)));
    cast_kernels(isa_).encode(x, Float::bf16, linear.num_in, rule.format, *scale_bias, false, codes_.data(), nullptr);
    return amax < infinity_bits;
  }

  Isa isa_;
  int num_threads_;
  std::vector<uint8_t> codes_;
};

// Puts the token's key and value behind those that are there, and attends to all of them.
void attention(const TokenKernels& kernels, const DecoderLayer& layer, uint16_t* q, uint16_t* k, const uint16_t* v,
               const uint16_t* cosines, const uint16_t* sines, const Cached& cache, uint16_t* out, int num_threads) {
  const int64_t dim = layer.head_dim, group = layer.num_heads / layer.num_kv_heads, length = cache.length + 1;
  const int64_t work = layer.num_heads * dim * length;
  const int most = static_cast<int>(std::clamp<int64_t>(work >> 14, 1, num_threads));  // else a thread costs more
  std::vector<float> scores(static_cast<size_t>(layer.num_heads * length));
  parallel_for(static_cast<int>(layer.num_kv_heads), most, [&](int head) {
    uint16_t* queries = q + head * group * dim;
    for (int64_t h = 0; h < group; ++h) kernels.rotate(queries + h * dim, cosines, sines, dim);
    kernels.rotate(k + head * dim, cosines, sines, dim);
    uint16_t* keys = cache.keys + head * cache.head_stride;
    uint16_t* values = cache.values + head * cache.head_stride;
    std::copy_n(k + head * dim, dim, keys + cache.length * dim);
    std::copy_n(v + head * dim, dim, values + cache.length * dim);
    kernels.attend(queries, keys, values, group, dim, length, layer.attention_scale,
                   scores.data() + head * group * length, out + head * group * dim);
  });
}

}  // namespace

int amax_to_scale_bias(uint32_t amax_bits, Fp8 format, int margin) {
  if (amax_bits == 0 || amax_bits >= infinity_bits) return 0;
  int exponent, max_exponent;
  const float mantissa = std::frexp(from_bits(amax_bits), &exponent);
  const float max_mantissa = std::frexp(from_bits(row(format).max_bits()), &max_exponent);
  return std::clamp(max_exponent - exponent - (mantissa > max_mantissa) - margin, -126, 126);
}

int decode_token(Isa isa, const DecoderLayer& layer, const uint16_t* x, const uint16_t* cosines, const uint16_t* sines,
                 const Cached& cache, uint16_t* out, int num_threads) {
  const TokenKernels& kernels = token_kernels(isa);
  const int64_t hidden = layer.q.num_in, heads = layer.q.num_out, kv = layer.k.num_out, inner = layer.gate.num_out;
  static thread_local Scratch<uint16_t> scratch;
  uint16_t* next = scratch.reserve(hidden + 2 * heads + 2 * kv + 2 * inner);
  const auto take = [&](int64_t n) { return std::exchange(next, next + n); };
  uint16_t *normed = take(hidden), *q = take(heads), *attended = take(heads), *k = take(kv), *v = take(kv);
  uint16_t *gate = take(inner), *up = take(inner);
  Products products(isa, num_threads);

  kernels.norm(x, layer.norm1, hidden, normed);
  products.run(normed, {&layer.q, &layer.k, &layer.v}, {q, k, v}, 0);
  attention(kernels, layer, q, k, v, cosines, sines, cache, attended, num_threads);
  products.run(attended, {&layer.o}, {out}, 3);
  kernels.add(out, x, hidden);

  kernels.norm(out, layer.norm2, hidden, normed);
  products.run(normed, {&layer.gate, &layer.up}, {gate, up}, 4);
  kernels.gated(gate, up, inner, up);
  products.run(up, {&layer.down}, {normed}, 6);
  kernels.add(out, normed, hidden);
  return products.first_nonfinite;
}

}  // namespace octoscale
