#include "buffer.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>
#include <map>
#include <mutex>
#include <new>

namespace c2am {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kHugePage = size_t{1} << 21;
constexpr size_t kLarge = size_t{1} << 17;  // from which blocks are kept
constexpr size_t kMostKept = size_t{1} << 28;

size_t alignment_of(size_t bytes) { return bytes >= kHugePage ? kHugePage : kLine; }

size_t rounded(size_t bytes) {
  const size_t unit = alignment_of(bytes);
  return (bytes + unit) / unit * unit;
}

struct Kept {
  std::mutex mutex;
  std::multimap<size_t, void*> blocks;  // by size
  size_t bytes = 0;
};

Kept& kept() {
  static Kept* const all = new Kept;  // never destroyed: threads may outlive static objects
  return *all;
}

// A kept block of exactly this size, or null: the next computation is mostly of the same shapes.
void* take(size_t bytes) {
  Kept& all = kept();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.blocks.find(bytes);
  if (found == all.blocks.end()) return nullptr;
  void* block = found->second;
  all.blocks.erase(found);
  all.bytes -= bytes;
  return block;
}

}  // namespace

void* allocate(size_t wanted) {
  const size_t bytes = rounded(wanted);
  if (bytes >= kLarge) {
    if (void* block = take(bytes)) return block;
  }
  void* block = std::aligned_alloc(alignment_of(bytes), bytes);
  if (block == nullptr) throw std::bad_alloc();
#if defined(__linux__)
  if (bytes >= kHugePage) madvise(block, bytes, MADV_HUGEPAGE);
#endif
  return block;
}

void release(void* block, size_t wanted) {
  const size_t bytes = rounded(wanted);
  if (bytes >= kLarge) {
    Kept& all = kept();
    const std::lock_guard<std::mutex> lock(all.mutex);
    if (all.bytes + bytes <= kMostKept) {
      all.blocks.emplace(bytes, block);
      all.bytes += bytes;
      return;
    }
  }
  std::free(block);
}

}  // namespace c2am
