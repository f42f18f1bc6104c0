#include "buffer.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <new>
#include <unordered_map>

namespace c2am {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kHugePage = size_t{1} << 21;
constexpr size_t kLarge = size_t{1} << 17;     // from which blocks are kept
constexpr size_t kKept = size_t{1} << 28;      // always, and up to
constexpr size_t kMostKept = size_t{1} << 30;  // if about as much was in use at once

size_t alignment_of(size_t bytes) { return bytes >= kHugePage ? kHugePage : kLine; }

size_t rounded(size_t bytes) {
  const size_t unit = alignment_of(bytes);
  return (bytes + unit) / unit * unit;
}

// Large blocks, in use and kept.
class Pool {
 public:
  // The smallest kept block that is large enough, the last released of equals, or null. At most a
  // third of it is left unused. The next computation is mostly of similar shapes.
  void* take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto found = kept_.end();
    for (auto block = kept_.begin(); block != kept_.end(); ++block) {
      const bool fits = block->bytes >= bytes && block->bytes - bytes <= bytes / 2;
      if (fits && (found == kept_.end() || block->bytes <= found->bytes)) found = block;
    }
    if (found == kept_.end()) return nullptr;
    const Block block = *found;
    kept_.erase(found);
    kept_bytes_ -= block.bytes;
    add(block);
    return block.data;
  }

  void free_all() {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_above(0);
  }

  // Notes a new block.
  void add(void* data, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    add({data, bytes});
    shrink();
  }

  void keep(void* data) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = used_.find(data);
    const size_t bytes = found->second;
    used_.erase(found);
    used_bytes_ -= bytes;
    kept_.push_back({data, bytes});
    kept_bytes_ += bytes;
    shrink();
  }

 private:
  struct Block {
    void* data;
    size_t bytes;
  };

  void add(const Block& block) {
    used_[block.data] = block.bytes;
    used_bytes_ += block.bytes;
    most_used_ = std::max(most_used_, used_bytes_);
  }

  // Frees what has been kept for longest. The extra quarter is for blocks of one computation that
  // are not in use at the same time.
  void shrink() {
    const size_t most = most_used_ + most_used_ / 4;
    free_above(std::clamp(most - used_bytes_, kKept, kMostKept));
  }

  void free_above(size_t bytes) {
    while (kept_bytes_ > bytes) {
      std::free(kept_.front().data);
      kept_bytes_ -= kept_.front().bytes;
      kept_.pop_front();
    }
  }

  std::mutex mutex_;
  std::deque<Block> kept_;  // in the order in which they were released
  std::unordered_map<void*, size_t> used_;
  size_t kept_bytes_ = 0, used_bytes_ = 0, most_used_ = 0;
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
    pool().free_all();
    block = std::aligned_alloc(alignment_of(bytes), bytes);
  }
  if (block == nullptr) throw std::bad_alloc();
#if defined(__linux__)
  if (bytes >= kHugePage) madvise(block, bytes, MADV_HUGEPAGE);
#endif
  if (bytes >= kLarge) pool().add(block, bytes);
  return block;
}

void release(void* block, size_t wanted) {
  if (rounded(wanted) >= kLarge) {
    pool().keep(block);
  } else {
    std::free(block);
  }
}

}  // namespace c2am
