// The loops of token_loops.h, compiled for avx512.

#include "token_loops.h"

namespace octoscale {

const TokenKernels token_avx512 = token_loops;

}  // namespace octoscale
