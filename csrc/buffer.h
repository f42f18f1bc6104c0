// Memory for large arrays: not initialised, aligned for vectors, in huge pages where the system has
// them, and kept for the next computation, since fresh pages cost a good part of a short one.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace c2am {

// Large blocks are kept when they are released, for the next ones of their size or down to two
// thirds: up to 256 MiB of them, or up to 1 GiB as long as blocks in use and kept are no more than
// 5/4 of what was in use at once. Thread-safe. `allocate` throws std::bad_alloc; `release` is to
// get the size that was asked for.
void* allocate(size_t bytes);
void release(void* block, size_t bytes);

template <typename T>
class Buffer {
  static_assert(std::is_trivially_copyable<T>::value, "elements are not constructed");

 public:
  Buffer() = default;
  explicit Buffer(int64_t size)
      : data_(static_cast<T*>(allocate(size * sizeof(T))), Release{size * sizeof(T)}),
        size_(size) {}
  Buffer(int64_t size, T value) : Buffer(size) {
    for (T& element : *this) element = value;
  }

  int64_t size() const { return size_; }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](int64_t i) { return data_.get()[i]; }
  const T& operator[](int64_t i) const { return data_.get()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }

 private:
  struct Release {
    size_t bytes = 0;
    void operator()(T* data) const { release(data, bytes); }
  };
  std::unique_ptr<T[], Release> data_;
  int64_t size_ = 0;
};

}  // namespace c2am
