#include "buffer.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <mutex>
#include <new>

namespace c2am {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kHugePage = size_t{1} << 21;
constexpr size_t kLarge = size_t{1} << 17;     // from which blocks are kept
constexpr size_t kKept = size_t{1} << 28;      // always, and up to
constexpr size_t kMostKept = size_t{1} << 30;  // if as much was in use at once

size_t alignment_of(size_t bytes) { return bytes >= kHugePage ? kHugePage : kLine; }

size_t rounded(size_t bytes) {
  const size_t unit = alignment_of(bytes);
  return (bytes + unit) / unit * unit;
}

// Large blocks, in use and kept.
class Pool {
 public:
  // A kept block of exactly this size, or null: the next computation is mostly of the same shapes.
  void* take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    used_ += bytes;
    most_used_ = std::max(most_used_, used_);
    const auto found = std::find_if(kept_.rbegin(), kept_.rend(),
                                    [=](const Block& block) { return block.bytes == bytes; });
    void* data = nullptr;
    if (found != kept_.rend()) {
      data = found->data;
      kept_bytes_ -= bytes;
      kept_.erase(std::next(found).base());
    }
    shrink();
    return data;
  }

  // After a null of `take` that no memory was found for.
  void lose(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    used_ -= bytes;
  }

  void keep(void* data, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    used_ -= bytes;
    kept_.push_back({data, bytes});
    kept_bytes_ += bytes;
    shrink();
  }

 private:
  struct Block {
    void* data;
    size_t bytes;
  };

  // Frees what has been kept for longest.
  void shrink() {
    while (kept_bytes_ > std::clamp(most_used_ - used_, kKept, kMostKept)) {
      std::free(kept_.front().data);
      kept_bytes_ -= kept_.front().bytes;
      kept_.pop_front();
    }
  }

  std::mutex mutex_;
  std::deque<Block> kept_;  // in the order in which they were released
  size_t kept_bytes_ = 0, used_ = 0, most_used_ = 0;
};

Pool& pool() {
  static Pool* const all = new Pool;  // never destroyed: threads may outlive static objects
  return *all;
}

}  // namespace

void* allocate(size_t wanted) {
  const size_t bytes = rounded(wanted);
  if (bytes >= kLarge) {
    if (void* block = pool().take(bytes)) return block;
  }
  void* block = std::aligned_alloc(alignment_of(bytes), bytes);
  if (block == nullptr) {
    if (bytes >= kLarge) pool().lose(bytes);
    throw std::bad_alloc();
  }
#if defined(__linux__)
  if (bytes >= kHugePage) madvise(block, bytes, MADV_HUGEPAGE);
#endif
  return block;
}

void release(void* block, size_t wanted) {
  const size_t bytes = rounded(wanted);
  if (bytes >= kLarge) {
    pool().keep(block, bytes);
  } else {
    std::free(block);
  }
}

}  // namespace c2am
