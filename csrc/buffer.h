// Memory for large arrays: not initialised, aligned for vectors, and in huge pages where the system
// has them, since touching fresh small pages is a good part of a short computation.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <type_traits>

namespace c2am {

template <typename T>
class Buffer {
  static_assert(std::is_trivial_v<T>, "elements are not initialised");

 public:
  Buffer() = default;
  explicit Buffer(int64_t size) : size_(size) {
    constexpr size_t kLine = 64, kHugePage = size_t{1} << 21;
    const size_t wanted = static_cast<size_t>(size) * sizeof(T);
    const size_t alignment = wanted >= kHugePage ? kHugePage : kLine;
    const size_t bytes = (wanted + alignment) / alignment * alignment;
    data_.reset(static_cast<T*>(std::aligned_alloc(alignment, bytes)));
    if (!data_) throw std::bad_alloc();
#if defined(__linux__)
    if (alignment == kHugePage) madvise(data_.get(), bytes, MADV_HUGEPAGE);
#endif
  }
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
  struct Free {
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T[], Free> data_;
  int64_t size_ = 0;
};

}  // namespace c2am
