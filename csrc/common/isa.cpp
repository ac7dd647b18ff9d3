// What the CPU says it has, and what its operating system lets a process use.

#include "common/isa.h"

#if defined(OCTOSCALE_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace octoscale {

const char* name_of(Isa isa) {
  constexpr const char* names[num_isas] = {"scalar", "avx2", "avx512", "amx"};
  return names[static_cast<int>(isa)];
}

#if defined(OCTOSCALE_X86)

namespace {

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bf16");
}

// Tile registers are 8 KiB that the system has to save, so a process must ask for them.
bool has_amx() {
#if defined(OCTOSCALE_AMX)
  unsigned a, b, c, d = 0;
  __get_cpuid_count(7, 0, &a, &b, &c, &d);
  const bool bf16 = d >> 22 & 1, tiles = d >> 24 & 1;
  constexpr long request_permission = 0x1023, tile_data = 18;  // <asm/prctl.h>, and the bit of the state in XCR0
  static const bool permitted = bf16 && tiles && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return permitted;
#else
  return false;
#endif
}

}  // namespace

bool is_available(Isa isa) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (isa == Isa::avx2) return avx2;
  if (isa == Isa::avx512) return avx2 && has_avx512();
  if (isa == Isa::amx) return avx2 && has_avx512() && has_amx();
  return true;
}

#else

bool is_available(Isa isa) { return isa == Isa::scalar; }

#endif

}  // namespace octoscale
