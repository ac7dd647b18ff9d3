// Few rows against several weights: the columns of all of them, dealt out to the threads.
#pragma once

#include <algorithm>

#include "common/pieces.h"
#include "common/pool.h"
#include "product/matmul.h"

namespace octoscale {
namespace {

// Below some hundred thousand multiplications, waking a thread costs more than it saves.
inline int num_shares(int64_t num_rows, const Part* parts, int num_parts, int num_threads) {
  constexpr int64_t least_per_task = 1 << 17;
  int64_t work = 0;
  for (int i = 0; i < num_parts; ++i) work += num_rows * parts[i].b.rows * parts[i].b.cols;
  return static_cast<int>(std::clamp<int64_t>(work / least_per_task, 1, num_threads));
}

// body(part, first, last): columns [first, last) of a part; there may be none.
template <class Body>
void deal_columns(int64_t num_rows, const Part* parts, int num_parts, int num_threads, Body&& body) {
  const int num_tasks = num_shares(num_rows, parts, num_parts, num_threads);
  parallel_for(num_tasks, num_threads, [&](int task) {
    for (int i = 0; i < num_parts; ++i) {
      const int64_t num_cols = parts[i].b.cols, share = ceil_div(num_cols, num_tasks);
      body(parts[i], share * task, std::min(num_cols, share * (task + 1)));
    }
  });
}

}  // namespace
}  // namespace octoscale
