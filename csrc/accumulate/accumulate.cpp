// Which kernel sums.

#include "accumulate/accumulate.h"

namespace octoscale {

void accumulate(Isa isa, const Accumulation& rule, const Matrix& a, const Matrix& b, float* out, int num_threads) {
#if defined(OCTOSCALE_X86)
  if (isa >= Isa::avx512) return accumulate_avx512(rule, a, b, out, num_threads);
  if (isa == Isa::avx2) return accumulate_avx2(rule, a, b, out, num_threads);
#endif
  (void)isa;
  accumulate_scalar(rule, a, b, out, num_threads);
}

}  // namespace octoscale
