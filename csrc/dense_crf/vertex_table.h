// Sets of lattice vertices by key: a hash table that numbers them, and sorting.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "buffer.h"

namespace c2am {

template <typename Key>
struct Vertex {
  Key key;
  int32_t number;  // from 0
};

// Vertices numbered in the order of their insertion. Open addressing, at most half full.
template <typename Key>
class VertexTable {
 public:
  explicit VertexTable(int64_t expected) {
    while ((int64_t{1} << bits_) < 2 * expected) ++bits_;
    slots_ = Buffer<Vertex<Key>>(int64_t{1} << bits_, kFree);
  }

  // Brings the key's slot into the cache for a later `insert`.
  void prefetch(Key key) const { __builtin_prefetch(&slots_[home(key)]); }

  int32_t insert(Key key) {
    Vertex<Key>& slot = slot_of(key);
    if (slot.number < 0) {
      const auto number = static_cast<int32_t>(keys_.size());
      slot = {key, number};
      keys_.push_back(key);
      if (2 * static_cast<int64_t>(keys_.size()) > slots_.size()) grow();
      return number;
    }
    return slot.number;
  }

  const std::vector<Key>& keys() const { return keys_; }  // by number

 private:
  static constexpr Vertex<Key> kFree{0, -1};

  int64_t home(Key key) const {
    auto mixed = static_cast<uint64_t>(key);
    if constexpr (sizeof(Key) > 8) mixed ^= static_cast<uint64_t>(key >> 64) * 0xD6E8FEB86659FD93u;
    return static_cast<int64_t>((mixed * 0x9E3779B97F4A7C15u) >> (64 - bits_));
  }

  // The slot that holds the key, or the free one in which it belongs.
  Vertex<Key>& slot_of(Key key) {
    int64_t i = home(key);
    while (slots_[i].number >= 0 && slots_[i].key != key) i = (i + 1) & (slots_.size() - 1);
    return slots_[i];
  }

  void grow() {
    const Buffer<Vertex<Key>> before = std::move(slots_);
    ++bits_;
    slots_ = Buffer<Vertex<Key>>(2 * before.size(), kFree);
    for (const Vertex<Key>& slot : before) {
      if (slot.number >= 0) slot_of(slot.key) = slot;
    }
  }

  Buffer<Vertex<Key>> slots_;
  int bits_ = 10;
  std::vector<Key> keys_;
};

// Sorts by key, all of which are below `end`: radix sort, from the least significant digit.
template <typename Key>
void sort_by_key(std::vector<Vertex<Key>>& vertices, Key end) {
  constexpr int kDigit = 11;
  std::vector<Vertex<Key>> sorted(vertices.size());
  for (int shift = 0; shift < static_cast<int>(8 * sizeof(Key)) && (end >> shift) != 0;
       shift += kDigit) {
    const auto digit = [shift](const Vertex<Key>& v) {
      return static_cast<size_t>(v.key >> shift) & ((1 << kDigit) - 1);
    };
    std::array<int32_t, 1 << kDigit> place{};
    for (const Vertex<Key>& v : vertices) ++place[digit(v)];
    int32_t sum = 0;
    for (int32_t& p : place) sum += p, p = sum - p;
    for (const Vertex<Key>& v : vertices) sorted[place[digit(v)]++] = v;
    vertices.swap(sorted);
  }
}

}  // namespace c2am
