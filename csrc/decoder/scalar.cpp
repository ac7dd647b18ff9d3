// The loops of loops.h, one number at a time.

#include "decoder/loops.h"

namespace octoscale {

const DecoderKernels decoder_scalar = {norm_loop, rotate_loop, attend_loop, gated_loop, add_loop,
                                       nullptr, nullptr, nullptr};

}  // namespace octoscale
