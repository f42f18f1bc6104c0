// The pairs of the pixels of a map, for the loops over them (path_affinity, affinity_loss,
// displacement_loss). Sources are the pixels from which every displacement stays in the map.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "paths.h"
#include "simd.h"

namespace c2am {

// Pixels are numbers in the flattened (H, W) map, displacements differences of these.
struct PairTable {
  PairTable(int64_t height, int64_t width, double radius)
      : height(height),
        width(width),
        margin(reach(radius)),
        rows(std::max<int64_t>(height - margin, 0)),
        columns(std::max<int64_t>(width - 2 * margin, 0)) {
    for (const Path& path : path_table(radius)) {
      begin.push_back(static_cast<int>(steps.size()));
      ends.push_back(path.end);
      for (const Offset& o : path.pixels) steps.push_back(o.dy * width + o.dx);
    }
    begin.push_back(static_cast<int>(steps.size()));
  }
  int count() const { return static_cast<int>(ends.size()); }
  int64_t step(int p) const { return ends[p].dy * width + ends[p].dx; }
  int64_t source(int64_t y, int64_t column) const { return y * width + margin + column; }

  int64_t height, width;
  int64_t margin;              // of columns on both sides, and of rows below, without sources
  int64_t rows, columns;       // of sources
  std::vector<Offset> ends;    // (P,)
  std::vector<int64_t> steps;  // to the pixels of all paths, in the order of `Path`
  std::vector<int> begin;      // (P + 1,): where the path of a displacement begins in `steps`
};

// Integers as wide as T, of which masks and places of a vector are made.
template <typename T>
using Integer = typename std::conditional<sizeof(T) == 4, int32_t, int64_t>::type;

// The largest value on the path of displacement p, from the sources at `source` and its right.
template <typename T, typename V>
C2AM_INLINE void path_maximum(const T* source, const PairTable& table, int p, V& largest) {
  load(largest, source);
  for (int k = table.begin[p] + 1; k < table.begin[p + 1]; ++k) {
    V candidate;
    load(candidate, source + table.steps[k]);
    largest = candidate > largest ? candidate : largest;
  }
}

// The same, and the step to where it is: among equal values the first, nearest to the source.
template <typename T, typename V, typename I>
C2AM_INLINE void path_argmaximum(const T* source, const PairTable& table, int p, V& largest,
                                 I& where) {
  load(largest, source);
  where = I{};
  for (int k = table.begin[p] + 1; k < table.begin[p + 1]; ++k) {
    V candidate;
    load(candidate, source + table.steps[k]);
    const I rises = candidate > largest;
    where = rises ? I{} + static_cast<Integer<T>>(table.steps[k]) : where;
    largest = rises ? candidate : largest;
  }
}

// A copy with room behind it for the loads of a whole vector.
template <typename T, typename From>
std::vector<T> with_room(const From* values, int64_t count) {
  std::vector<T> copy(count + 64 / sizeof(T));
  std::copy_n(values, count, copy.begin());
  return copy;
}

// Calls task(image, first row, last row) for bands of source rows. Two bands that run at a time
// are parted by a third, which is no narrower than the margin, so that no pixel is on paths from
// both; and a pixel meets its bands in one order, whatever the number of threads.
template <typename Task>
void for_bands(const PairTable& table, int64_t batch, int threads, const Task& task) {
  const int64_t height = std::max<int64_t>(table.margin, 16);
  const int64_t bands = table.columns > 0 ? (table.rows + height - 1) / height : 0;
  for (int64_t odd = 0; odd < 2; ++odd) {
    const int64_t per_image = (bands + 1 - odd) / 2;
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < batch * per_image; ++i) {
      const int64_t first = (2 * (i % per_image) + odd) * height;
      task(i / per_image, first, std::min(first + height, table.rows));
    }
  }
}

}  // namespace c2am
