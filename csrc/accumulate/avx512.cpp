// Chains of 16 columns at a time.

#include "accumulate/chains.h"

namespace octoscale {

void accumulate_avx512(const Accumulation& rule, const Matrix& a, const Matrix& b, float* out, int num_threads) {
  accumulate_lanes<16>(rule, a, b, out, num_threads);
}

}  // namespace octoscale
