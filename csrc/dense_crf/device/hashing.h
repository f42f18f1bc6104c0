// Vertices by a hash table with open addressing, numbered as those of sorting.h: the lattice is the
// same.
//
// A slot holds one of the corners that have a key, the vertex's owner. Which slot and which corner
// hangs on the order of the threads, and so does the order in which vertices are listed. But then
// they are sorted by key, of which there are far fewer than corners, and the corners by the number
// of their vertex, which has fewer bits.
#pragma once

#include <algorithm>

#include "dense_crf/device/lattice.h"

namespace c2am::device {

C2AM_HD int32_t compare_and_swap(int32_t* at, int32_t expected, int32_t value) {
#ifdef __CUDA_ARCH__
  return atomicCAS(at, expected, value);
#else
  const int32_t before = *at;
  if (before == expected) *at = value;
  return before;
#endif
}

// Two slots for each corner: there is always a free one, even if no two corners share a vertex.
struct Table {
  static constexpr int32_t kFree = INT32_MAX;
  static constexpr int64_t kSlotsOfCorner = 2;

  const uint64_t* keys;  // of the corners
  int32_t* owners;       // (slots,)
  int64_t slots;         // below 2^32

  // The owner in a slot; a free one gets the corner.
  C2AM_HD int32_t claim(int64_t slot, int32_t corner) const {
    // Other threads write here, but only once: what is not free stays.
    int32_t owner = owners[slot];
    if (owner == kFree) owner = compare_and_swap(owners + slot, kFree, corner);
    return owner == kFree ? corner : owner;
  }
  // The owner of the vertex with a key, or kFree.
  C2AM_HD int32_t find(uint64_t key) const {
    for (int64_t slot = home(key);; slot = next(slot)) {
      const int32_t owner = owners[slot];
      if (owner == kFree || keys[owner] == key) return owner;
    }
  }

  C2AM_HD int64_t home(uint64_t key) const {
    const uint64_t mixed = (key * 0x9E3779B97F4A7C15u) >> 32;
    return static_cast<int64_t>(mixed * static_cast<uint64_t>(slots) >> 32);
  }
  C2AM_HD int64_t next(int64_t slot) const { return slot + 1 < slots ? slot + 1 : 0; }
};

// For each corner: the owner of its vertex.
struct Insert {
  Table table;
  uint32_t* owner;

  C2AM_HD void operator()(int64_t i, int) const {
    const auto corner = static_cast<int32_t>(i);
    const uint64_t key = table.keys[i];
    int64_t slot = table.home(key);
    int32_t other = table.claim(slot, corner);
    while (table.keys[other] != key) {
      slot = table.next(slot);
      other = table.claim(slot, corner);
    }
    owner[i] = static_cast<uint32_t>(other);
  }
};

// For each corner: 1 for an owner, else 0.
struct MarkOwners {
  const uint32_t* owner;
  uint32_t* number;

  C2AM_HD void operator()(int64_t i, int) const { number[i] = owner[i] == i ? 1 : 0; }
};

// For each corner that is an owner: it and its key, to be sorted.
struct ListOwners {
  const uint64_t* keys;
  const uint32_t *owner, *number;  // how many owners there are up to each corner
  CornersBy<uint64_t> to;          // (M,)

  C2AM_HD void operator()(int64_t i, int) const {
    if (owner[i] != i) return;
    to.keys[number[i] - 1] = keys[i];
    to.corners[number[i] - 1] = static_cast<int32_t>(i);
  }
};

// For each vertex (from 0) by key: its number, at its owner.
struct NumberOwners {
  const int32_t* corners;  // (M,)
  uint32_t* number;

  C2AM_HD void operator()(int64_t i, int) const {
    number[corners[i]] = static_cast<uint32_t>(i + 1);
  }
};

// For each corner: its vertex, in place of the owner.
struct NumberCorners {
  const uint32_t* number;  // of vertices, at their owners
  uint32_t* owner;

  C2AM_HD void operator()(int64_t i, int) const { owner[i] = number[owner[i]]; }
};

// For each vertex (from 0) and axis: the neighbours.
struct ConnectByTable {
  Table table;
  const uint32_t* number;       // as before
  const uint64_t* vertex_keys;  // (M,)
  Keys keys;
  Lattice lattice;

  C2AM_HD void operator()(int64_t i, int axis) const {
    const int32_t other = table.find(vertex_keys[i] + keys.step[axis]);
    if (other == Table::kFree) return;
    lattice.connect(axis, static_cast<int32_t>(i + 1), static_cast<int32_t>(number[other]));
  }
};

class Hashing {
 public:
  // As those of Sorting.
  template <typename Queue>
  void take(Parts& parts, Queue& queue, int64_t count, int bits) {
    bits_ = bits;
    parts.take(keys_, count);
    by_vertex_.take(parts, count);
    table_.slots = Table::kSlotsOfCorner * count;
    parts.take(table_.owners, table_.slots);
    table_.keys = keys_;
    parts.take(number_, count);
    // Of vertices there are at most as many as corners.
    const int64_t of_keys = queue.scratch_bytes(CornersBy<uint64_t>(), number_, count, bits);
    const int of_number = bits_of_number(count);
    parts.take(scratch_,
               std::max(of_keys, queue.scratch_bytes(by_vertex_, number_, count, of_number)));
  }

  uint64_t* keys() const { return keys_; }
  int32_t* corners() const { return by_vertex_.corners; }

  template <typename Queue>
  const uint32_t* find(Queue& queue, int64_t count) {
    queue.each(table_.slots, 1, Fill<int32_t>{Table::kFree, table_.owners});
    queue.each(count, 1, Insert{table_, by_vertex_.keys});
    queue.each(count, 1, MarkOwners{by_vertex_.keys, number_});
    queue.sum(number_, count, scratch_);
    return number_ + count - 1;
  }

  // by_key: room for the vertices.
  template <typename Queue>
  void build(Queue& queue, const Lattice& lattice, const Keys& keys, CornersBy<uint64_t> by_key) {
    const int64_t count = lattice.count(), vertices = lattice.vertices;
    queue.each(count, 1, ListOwners{keys_, by_vertex_.keys, number_, by_key});
    queue.sort(by_key, vertices, bits_, scratch_);
    queue.each(vertices, 1, NumberOwners{by_key.corners, number_});
    queue.each(count, 1, NumberCorners{number_, by_vertex_.keys});
    queue.sort(by_vertex_, count, bits_of_number(vertices), scratch_);
    queue.each(count, 1, Enter{by_vertex_.keys, by_vertex_.corners, lattice});
    queue.each(vertices, kAxes, ConnectByTable{table_, number_, by_key.keys, keys, lattice});
  }

 private:
  static int bits_of_number(int64_t last) {
    int bits = 0;
    while (last >> bits != 0) ++bits;
    return bits;
  }

  int bits_ = 0;
  uint64_t* keys_ = nullptr;
  CornersBy<uint32_t> by_vertex_{};  // whose keys are the owners at first
  Table table_{};
  uint32_t* number_ = nullptr;  // of the vertices, at their owners
  char* scratch_ = nullptr;
};

}  // namespace c2am::device
