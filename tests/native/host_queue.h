// Runs what a GPU's threads do one after the other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "buffer.h"

namespace native {

// As CudaQueue of csrc/cuda_queue.h.
struct HostQueue {
  template <typename Body>
  void each(int64_t n, int lanes, const Body& body) {
    // Backwards: the order of the threads must not count.
    for (int64_t i = n - 1; i >= 0; --i) {
      for (int lane = 0; lane < lanes; ++lane) body(i, lane);
    }
  }
  void clear(void* block, int64_t bytes) { std::memset(block, 0, bytes); }
  template <typename T>
  void upload(T* to, const T* from, int64_t count) {
    std::copy_n(from, count, to);
  }
};

// Memory of bytes 0xff: not a number, and no index.
class Block {
 public:
  explicit Block(int64_t bytes) : data_(c2am::allocate(bytes)), bytes_(bytes) {
    std::memset(data_, 0xff, bytes_);
  }
  Block(const Block&) = delete;
  ~Block() { c2am::release(data_, bytes_); }
  char* data() { return static_cast<char*>(data_); }

 private:
  void* data_;
  int64_t bytes_;
};

}  // namespace native
