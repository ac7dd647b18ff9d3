// Chains of 8 columns at a time.

#include "accumulate/chains.h"

namespace octoscale {

void accumulate_avx2(const Accumulation& rule, const Matrix& a, const Matrix& b, float* out, int num_threads) {
  accumulate_lanes<8>(rule, a, b, out, num_threads);
}

}  // namespace octoscale
