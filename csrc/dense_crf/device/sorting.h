// Vertices by sorting the corners by key, stably.
#pragma once

#include "dense_crf/device/lattice.h"

namespace c2am::device {

// For each corner by key: 1 where a vertex begins, else 0.
struct MarkKeys {
  const uint64_t* keys;
  uint32_t* number;

  C2AM_HD void operator()(int64_t i, int) const {
    number[i] = i == 0 || keys[i] != keys[i - 1] ? 1 : 0;
  }
};

// For each corner by key: its entry, and the key of the vertex that begins there.
struct EnterKeys {
  Enter enter;
  const uint64_t* keys;
  uint64_t* vertex_keys;  // (M,), of vertex v at v - 1

  C2AM_HD void operator()(int64_t i, int lane) const {
    enter(i, lane);
    if (enter.begins(i)) vertex_keys[enter.vertices[i] - 1] = keys[i];
  }
};

// For each vertex (from 0) and axis: the neighbours.
struct ConnectBySearch {
  const uint64_t* vertex_keys;  // (M,)
  Keys keys;
  Lattice lattice;

  C2AM_HD void operator()(int64_t i, int axis) const {
    const uint64_t wanted = vertex_keys[i] + keys.step[axis];
    // Binary search between the vertex itself, whose key is smaller, and the end.
    auto low = static_cast<int32_t>(i), high = static_cast<int32_t>(lattice.vertices - 1);
    while (low < high) {
      const int32_t middle = low + (high - low + 1) / 2;
      const bool beyond = vertex_keys[middle] > wanted;
      low = beyond ? low : middle;
      high = beyond ? middle - 1 : high;
    }
    if (vertex_keys[low] == wanted) lattice.connect(axis, static_cast<int32_t>(i + 1), low + 1);
  }
};

class Sorting {
 public:
  // bits: of the keys. The memory is needed until `build` is done.
  template <typename Queue>
  void take(Parts& parts, Queue& queue, int64_t count, int bits) {
    bits_ = bits;
    by_key_.take(parts, count);
    parts.take(number_, count);
    parts.take(scratch_, queue.scratch_bytes(by_key_, number_, count, bits));
  }

  uint64_t* keys() const { return by_key_.keys; }
  int32_t* corners() const { return by_key_.corners; }

  // Of the corners that were placed; returns where the number of vertices is.
  template <typename Queue>
  const uint32_t* find(Queue& queue, int64_t count) {
    queue.sort(by_key_, count, bits_, scratch_);
    queue.each(count, 1, MarkKeys{by_key_.keys, number_});
    queue.sum(number_, count, scratch_);
    return number_ + count - 1;
  }

  template <typename Queue>
  void build(Queue& queue, const Lattice& lattice, const Keys& keys, const CornersBy<uint64_t>&) {
    uint64_t* vertex_keys = by_key_.other_keys;  // which the sort has left
    queue.each(lattice.count(), 1,
               EnterKeys{{number_, by_key_.corners, lattice}, by_key_.keys, vertex_keys});
    queue.each(lattice.vertices, kAxes, ConnectBySearch{vertex_keys, keys, lattice});
  }

 private:
  int bits_ = 0;
  CornersBy<uint64_t> by_key_{};
  uint32_t* number_ = nullptr;  // of the vertex of each corner by key
  char* scratch_ = nullptr;
};

}  // namespace c2am::device
