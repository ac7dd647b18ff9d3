// The loops of token_loops.h, compiled for avx2.

#include "token_loops.h"

namespace octoscale {

const TokenKernels token_avx2 = token_loops;

}  // namespace octoscale
