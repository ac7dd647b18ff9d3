// The loops of loops.h, compiled for AVX2.

#include "decoder/loops.h"

namespace octoscale {

const DecoderKernels decoder_avx2 = {norm_loop, rotate_loop, attend_loop, gated_loop, add_loop,
                                     nullptr, nullptr, nullptr};

}  // namespace octoscale
