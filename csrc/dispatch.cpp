#include "dispatch.h"

namespace octoscale {

const char* name_of(Isa isa) {
  constexpr const char* names[num_isas] = {"scalar", "avx2", "avx512"};
  return names[static_cast<int>(isa)];
}

#if defined(OCTOSCALE_X86)

bool is_available(Isa isa) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (isa == Isa::avx2) return avx2;
  if (isa == Isa::avx512)
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bf16");
  return true;
}

const CastKernels& cast_kernels(Isa isa) {
  return isa == Isa::avx512 ? cast_avx512 : isa == Isa::avx2 ? cast_avx2 : cast_scalar;
}

#else

bool is_available(Isa isa) { return isa == Isa::scalar; }

const CastKernels& cast_kernels(Isa) { return cast_scalar; }

#endif

}  // namespace octoscale
