// Runs for the threads, blocks for the first cache, and what each found put together.

#include "cast/quantize.h"

#include <algorithm>
#include <vector>

#include "common/formats.h"
#include "common/pages.h"
#include "common/pieces.h"
#include "common/pool.h"
#include "common/scalar.h"

namespace octoscale {

const CastKernels& cast_kernels([[maybe_unused]] Isa isa) {
#if defined(OCTOSCALE_X86)
  if (isa >= Isa::avx512) return cast_avx512;
  if (isa == Isa::avx2) return cast_avx2;
#endif
  return cast_scalar;
}

namespace {

constexpr int64_t block = 4096;             // elements: 16 KiB of float32, half of a first-level cache
constexpr int64_t least_per_task = 1 << 15;  // elements: below, waking a thread costs more than it saves

const void* at(const void* x, Float type, int64_t i) { return static_cast<const char*>(x) + i * size_of(type); }
void* at(void* x, Float type, int64_t i) { return static_cast<char*>(x) + i * size_of(type); }

// The contiguous runs of [first, last) elements of a tensor in rows: body(offset in x, offset in a contiguous copy, n).
template <class Body>
void for_each_run(Rows rows, int64_t first, int64_t last, Body&& body) {
  if (rows.num_rows == 1 || rows.row_stride == rows.num_cols) {
    if (first < last) body(first, first, last - first);
    return;
  }
  while (first < last) {
    const int64_t row = first / rows.num_cols, column = first % rows.num_cols;
    const int64_t n = std::min(rows.num_cols - column, last - first);
    body(row * rows.row_stride + column, first, n);
    first += n;
  }
}

// Cuts the tensor into as many equal runs of elements as there are threads: body(task, first, last).
template <class Body>
void for_each_task(Rows rows, int num_threads, Body&& body) {
  const int64_t size = rows.num_rows * rows.num_cols;
  const int num_tasks = static_cast<int>(std::clamp<int64_t>(size / least_per_task, 1, num_threads));
  const int64_t share = round_up(size / num_tasks, 64);
  parallel_for(num_tasks, num_threads, [&](int task) {
    const int64_t last = task == num_tasks - 1 ? size : std::min(size, share * (task + 1));
    body(task, std::min(size, share * task), last);
  });
}

template <class Body>
void for_each_block(int64_t n, Body&& body) {
  for (int64_t i = 0; i < n; i += block) body(i, std::min(block, n - i));
}

// What one thread found; on cache lines of its own.
struct alignas(128) Found {
  Observed observed;
  Counts counts;
};

Found merge(const std::vector<Found>& parts) {
  Found all;
  for (const Found& part : parts) {
    all.observed.amax_bits = std::max(all.observed.amax_bits, part.observed.amax_bits);
    for (int bin = 0; bin < num_exponent_bins; ++bin) all.observed.exponents[bin] += part.observed.exponents[bin];
    add(&all.counts, part.counts);
  }
  return all;
}

// Whether values of this amax, scaled, are finite and within the format.
bool is_tame(uint32_t amax_bits, const Encoding& encoding) {
  if (amax_bits >= infinity_bits) return false;
  return from_bits(amax_bits) * power_of_two(encoding.scale_bias) <= from_bits(row(encoding.format).max_bits());
}

void encode_run(const CastKernels& kernels, const void* x, Float type, int64_t n, bool tame, const Encoding& encoding,
                int64_t offset, Counts* counts) {
  uint8_t* codes = encoding.codes + offset;
  kernels.encode(x, type, n, encoding.format, encoding.scale_bias, tame, codes, encoding.counts ? counts : nullptr);
  if (encoding.values) kernels.decode(codes, n, encoding.format, 0, encoding.values + offset, Float::bf16);
}

}  // namespace

Observed observe(Isa isa, const void* x, Float type, Rows rows, bool exponents, int num_threads) {
  const CastKernels& kernels = cast_kernels(isa);
  std::vector<Found> parts(std::max(num_threads, 1));
  for_each_task(rows, num_threads, [&](int task, int64_t first, int64_t last) {
    Observed& seen = parts[task].observed;
    for_each_run(rows, first, last, [&](int64_t from, int64_t, int64_t n) {
      const uint32_t amax = kernels.observe(at(x, type, from), type, n, exponents ? seen.exponents : nullptr);
      seen.amax_bits = std::max(seen.amax_bits, amax);
    });
  });
  return merge(parts).observed;
}

Counts encode(Isa isa, const void* x, Float type, Rows rows, uint32_t amax_bits,
              const Encoding& encoding, int num_threads) {
  const CastKernels& kernels = cast_kernels(isa);
  const bool tame = is_tame(amax_bits, encoding);
  prefer_huge_pages(encoding.codes, rows.num_rows * rows.num_cols);
  std::vector<Found> parts(std::max(num_threads, 1));
  for_each_task(rows, num_threads, [&](int task, int64_t first, int64_t last) {
    for_each_run(rows, first, last, [&](int64_t from, int64_t to, int64_t n) {
      for_each_block(n, [&](int64_t i, int64_t size) {
        encode_run(kernels, at(x, type, from + i), type, size, tame, encoding, to + i, &parts[task].counts);
      });
    });
  });
  return merge(parts).counts;
}

Counts observe_and_encode(Isa isa, const void* x, Float type, Rows rows, bool exponents,
                          const Encoding& encoding, int num_threads, Observed* observed) {
  const CastKernels& kernels = cast_kernels(isa);
  prefer_huge_pages(encoding.codes, rows.num_rows * rows.num_cols);
  std::vector<Found> parts(std::max(num_threads, 1));
  for_each_task(rows, num_threads, [&](int task, int64_t first, int64_t last) {
    Found& found = parts[task];
    for_each_run(rows, first, last, [&](int64_t from, int64_t to, int64_t n) {
      for_each_block(n, [&](int64_t i, int64_t size) {
        const void* run = at(x, type, from + i);
        const uint32_t amax = kernels.observe(run, type, size, exponents ? found.observed.exponents : nullptr);
        found.observed.amax_bits = std::max(found.observed.amax_bits, amax);
        encode_run(kernels, run, type, size, is_tame(amax, encoding), encoding, to + i, &found.counts);
      });
    });
  });
  const Found all = merge(parts);
  *observed = all.observed;
  return all.counts;
}

void decode(Isa isa, const uint8_t* codes, Rows rows, Fp8 format, int scale_bias, void* out,
            Float type, int num_threads) {
  const CastKernels& kernels = cast_kernels(isa);
  prefer_huge_pages(out, rows.num_rows * rows.num_cols * size_of(type));
  for_each_task(rows, num_threads, [&](int, int64_t first, int64_t last) {
    for_each_run(rows, first, last, [&](int64_t from, int64_t to, int64_t n) {
      kernels.decode(codes + from, n, format, scale_bias, at(out, type, to), type);
    });
  });
}

}  // namespace octoscale
