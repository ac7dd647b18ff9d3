// Chains of 1 column at a time.

#include "accumulate/chains.h"

namespace octoscale {

void accumulate_scalar(const Accumulation& rule, const Matrix& a, const Matrix& b, float* out, int num_threads) {
  accumulate_lanes<1>(rule, a, b, out, num_threads);
}

}  // namespace octoscale
