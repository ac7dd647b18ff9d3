// Aligned memory that a thread keeps from one product to the next, so that no product pays for page faults.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "common/pieces.h"

namespace octoscale {
namespace {

template <class T>
class Scratch {
 public:
  ~Scratch() { std::free(data_); }

  // At least n elements, aligned to 64 bytes; whatever was there is lost when it grows.
  T* reserve(int64_t n) {
    if (n > size_) {
      std::free(data_);
      const size_t num_bytes = static_cast<size_t>(round_up(n * static_cast<int64_t>(sizeof(T)), 4096));
      data_ = static_cast<T*>(std::aligned_alloc(4096, num_bytes));
      if (!data_) std::abort();
      size_ = n;
    }
    return data_;
  }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace
}  // namespace octoscale
