// Memory of the GPU is the caller's, as one block for each purpose.
#pragma once

#include <cstdint>

namespace c2am::device {

// Hands out aligned parts of a block; of none, to learn how large it has to be.
class Parts {
 public:
  explicit Parts(void* block) : block_(static_cast<char*>(block)) {}

  template <typename T>
  void take(T*& part, int64_t count) {
    constexpr int64_t kAligned = 256;
    part = block_ == nullptr ? nullptr : reinterpret_cast<T*>(block_ + bytes_);
    bytes_ += (count * static_cast<int64_t>(sizeof(T)) + kAligned - 1) / kAligned * kAligned;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* block_;
  int64_t bytes_ = 0;
};

}  // namespace c2am::device
