// Threads: the OpenMP pool that torch already runs, never a second one.
//
// Nothing here is linked to an OpenMP library. kernels/native.py looks up GOMP_parallel and its two companions among
// the libraries that torch itself loaded (libgomp, libomp and libiomp5 all have them) and hands over the addresses.
// Without them, or inside a parallel region, work runs on the calling thread.
#pragma once

#include <cstdint>

namespace octoscale {

void use_pool(uintptr_t gomp_parallel, uintptr_t get_thread_num, uintptr_t get_num_threads);
bool has_pool();

// Calls task(context, i) for each i in [0, num_tasks), on up to num_threads threads. Task i runs on thread
// i % num_threads, so that memory stays with its core. Floating point is in its default mode meanwhile: denormals are
// kept, whatever torch.set_flush_denormal says.
void run_tasks(int num_tasks, int num_threads, void (*task)(void*, int), void* context);

template <class Body>
void parallel_for(int num_tasks, int num_threads, Body&& body) {
  run_tasks(num_tasks, num_threads, [](void* context, int i) { (*static_cast<Body*>(context))(i); }, &body);
}

}  // namespace octoscale
