// Work is dealt out to the pool by turns, or done here where there is none.

#include "common/pool.h"

#include <atomic>
#include <type_traits>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace octoscale {
namespace {

void (*parallel_region)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
int (*thread_num)() = nullptr;
int (*team_size)() = nullptr;

#if defined(__x86_64__)
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  ~DefaultFloatingPoint() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
};
#else
class DefaultFloatingPoint {};
#endif

struct Job {
  int num_tasks;
  void (*task)(void*, int);
  void* context;
};

void run_share(const Job& job, int first, int step) {
  [[maybe_unused]] DefaultFloatingPoint mode;
  for (int i = first; i < job.num_tasks; i += step) job.task(job.context, i);
}

void run_member(void* job) { run_share(*static_cast<Job*>(job), thread_num(), team_size()); }

}  // namespace

void use_pool(uintptr_t gomp_parallel, uintptr_t get_thread_num, uintptr_t get_num_threads) {
  parallel_region = reinterpret_cast<decltype(parallel_region)>(gomp_parallel);
  thread_num = reinterpret_cast<decltype(thread_num)>(get_thread_num);
  team_size = reinterpret_cast<decltype(team_size)>(get_num_threads);
}

bool has_pool() { return parallel_region != nullptr; }

void run_tasks(int num_tasks, int num_threads, void (*task)(void*, int), void* context) {
  Job job{num_tasks, task, context};
  const int num_members = num_tasks < num_threads ? num_tasks : num_threads;
  if (num_members <= 1 || !has_pool()) return run_share(job, 0, 1);
  parallel_region(run_member, &job, static_cast<unsigned>(num_members), 0);
}

}  // namespace octoscale
