// Products of matrices of FP8 codes: out = (a @ b) * 2**-scale_bias + bias, summed in float32 and rounded once.
//
// Few rows of a against a weight are bound by reading the weight (stream_*.cpp); many rows by arithmetic (gemm_*.cpp).
// Each output is summed by one thread in an order that does not depend on the number of threads: the same bits, always.
#pragma once

#include "common/dtypes.h"
#include "common/isa.h"
#include "product/unscale.h"

namespace octoscale {

// Scales that change along a sum: each value of a matrix is that of its code times 2**-exponents, of which there is one
// for so many rows and columns. Exponents are in [0, 92], those of both operands together, too. Null: all are 0.
struct Inner {
  const int32_t* exponents = nullptr;
  int64_t row_group = 1, col_group = 1;  // a multiple of 32 along the sum
  int64_t row_stride = 0, col_stride = 0;

  int32_t at(int64_t r, int64_t c) const { return exponents[r / row_group * row_stride + c / col_group * col_stride]; }
  Inner transposed() const { return {exponents, col_group, row_group, col_stride, row_stride}; }
};

// Element (r, c) is data[r * row_stride + c * col_stride]; one of the strides is 1.
struct Matrix {
  const void* data;
  bool is_bf16;  // values as they are; else codes of `format`
  Fp8 format;
  int64_t rows, cols, row_stride, col_stride;
  Inner inner = {};  // of codes; only matmul_by_rows knows it
};

struct Output {
  void* data;  // [a.rows, b.cols]; columns are contiguous
  Float type;
  int64_t row_stride;
  const void* bias;  // [b.cols] or null
  Float bias_type;
  int scale_bias;  // of a and b together, in [-252, 252]
};

// What streaming also knows of a weight that has more than one scale, or one that is no power of two.
struct ManyScales {
  const int32_t* biases;   // of each column, added to the output's scale_bias; null: 0
  const float* factors;    // of each column, float32, before the bias; null: `factor`
  float factor;
  // Of each run of `run_length` values along k, what its part of the sum is multiplied with: that of column c, run i,
  // is runs[c / run_length * stride + i]; null: 1. Only for one row of a.
  const float* runs;
  int64_t stride;
};
constexpr ManyScales one_scale = {nullptr, nullptr, 1.0f, nullptr, 0};
constexpr int64_t run_length = 128;

// a and b hold codes or bfloat16. False if this instruction set has no kernel for the case, as none but AVX-512 has for
// a weight in bfloat16, and that for few rows: then nothing was written.
bool matmul(Isa isa, const Matrix& a, const Matrix& b, const Output& out, int num_threads);

// One of several products of the same a.
struct Part {
  Matrix b;
  Output out;
  ManyScales scales;
};

// Few rows against several weights, each of them [N, K] and transposed, by one call of the threads.
void stream(Isa isa, const Matrix& a, const Part* parts, int num_parts, int num_threads);

// The scale_bias of each row of a and of each column of b; of both together in [-252, 252]. Null: that of the output.
struct Scales {
  const int32_t* rows;
  const int32_t* cols;
  const float* factors = nullptr;  // of each column, float32, before the bias; null: `factor`
  float factor = 1.0f;
};
constexpr Scales of_output = {nullptr, nullptr};

// out = (a @ b) * 2**-(rows[r] + cols[c]) * factors[c] + bias; the scale_bias of `out` is not looked at. b holds codes;
// for AVX2 its columns are contiguous. What a row gives depends neither on those beside it nor on how many there are.
// False if this instruction set has no kernel for scales that change along the sum: then nothing was written.
bool matmul_by_rows(Isa isa, const Matrix& a, const Matrix& b, const Output& out, Scales scales, int num_threads);

// The kernels. stream: a has at most max_stream_rows, b's columns are contiguous (a weight [N, K], transposed).
constexpr int max_stream_rows = 16;
void product_scalar(const Matrix& a, const Matrix& b, const Output& out, Unscale unscale, int num_threads);
void stream_scalar(const Matrix& a, const Part* parts, int num_parts, int num_threads);
void rows_scalar(const Matrix& a, const Matrix& b, const Output& out, Scales scales, int num_threads);
void gemm_avx2(const Matrix& a, const Matrix& b, const Output& out, Scales scales, int num_threads);
void stream_avx2(const Matrix& a, const Part* parts, int num_parts, int num_threads);
void stream_avx512(const Matrix& a, const Part* parts, int num_parts, int num_threads);
void gemm_avx512(const Matrix& a, const Matrix& b, const Output& out, Scales scales, int num_threads);
void gemm_amx(const Matrix& a, const Matrix& b, const Output& out, Scales scales, int num_threads);

}  // namespace octoscale
