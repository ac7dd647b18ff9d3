// The loops of token_loops.h, compiled for scalar.

#include "token_loops.h"

namespace octoscale {

const TokenKernels token_scalar = token_loops;

}  // namespace octoscale
