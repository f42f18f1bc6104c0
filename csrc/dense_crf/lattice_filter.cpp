#include "dense_crf/lattice_filter.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "dense_crf/loops.h"
#include "dense_crf/row.h"

namespace c2am {
namespace {

constexpr int64_t kTile = 1024;  // vertices or points of one task

// Calls body(first, last) for all tiles of 0 .. n - 1.
template <typename Body>
void for_tiles(int64_t n, int threads, const Body& body) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t first = 0; first < n; first += kTile) body(first, std::min(first + kTile, n));
}

// Adds the points of every other slab, whose simplices have no vertex in common, then the others.
void splat(const PermutohedralLattice& lattice, const float* from, int width, float* sums,
           int threads) {
  const auto slabs = static_cast<int64_t>(lattice.spans.size());
  const auto begin = [&](int64_t slab) {
    return sums + int64_t{lattice.slabs[std::min(slab, slabs)]} * width;
  };
  for (int64_t odd = 0; odd < 2; ++odd) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t slab = odd; slab < slabs; slab += 2) {
      if (odd == 0) std::fill(begin(slab), begin(slab + 2), 0.0f);
      const auto& spans = lattice.spans[slab];
      loops::splat(width, lattice.axes, lattice.corner.data(), lattice.weight.data(), spans.data(),
                   static_cast<int64_t>(spans.size()), from, sums);
    }
  }
}

template <typename T>
void blur(const PermutohedralLattice& lattice, LatticeValues<T>& to, int threads) {
  const int width = to.width;
  const int64_t rows = lattice.vertices + 1;  // with the missing vertex, whose values are 0
  const auto neighbours = [&](int axis) { return lattice.neighbours.data() + axis * rows * 2; };
  std::fill_n(to.sums.data(), width, 0.0f);
  T *now = to.values.data(), *next = reinterpret_cast<T*>(to.sums.data());
  for_tiles(rows, threads, [&](int64_t first, int64_t last) {
    loops::blur(width, neighbours(0), to.sums.data(), now, first, last);
  });
  const int leading = std::min(lattice.axes, 3);
  for (int axis = 1; axis < leading; ++axis) {
    for_tiles(rows, threads, [&](int64_t first, int64_t last) {
      loops::blur(width, neighbours(axis), now, next, first, last);
    });
    std::swap(now, next);
  }
  const auto blocks = static_cast<int64_t>(lattice.blocks.size()) - 1;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int64_t b = 0; b < blocks; ++b) {
    T *mine = now, *other = next;
    for (int axis = leading; axis < lattice.axes; ++axis) {  // within a block, while in cache
      loops::blur(width, neighbours(axis), mine, other, lattice.blocks[b], lattice.blocks[b + 1]);
      std::swap(mine, other);
    }
  }
  to.blurred = (lattice.axes - leading) % 2 == 0 ? now : next;
}

}  // namespace

template <typename T>
void splat_and_blur(const PermutohedralLattice& lattice, const float* from, LatticeValues<T>& to,
                    int threads) {
  splat(lattice, from, to.width, to.sums.data(), threads);
  blur(lattice, to, threads);
}

template <typename T>
void slice(const PermutohedralLattice& lattice, const LatticeValues<T>& from, const float* scale,
           int64_t first, int64_t last, float* to) {
  loops::slice(from.width, lattice.axes, lattice.corner.data(), lattice.weight.data(), scale,
               from.blurred, to, first, last);
}

template void splat_and_blur(const PermutohedralLattice&, const float*, LatticeValues<float>&, int);
template void splat_and_blur(const PermutohedralLattice&, const float*, LatticeValues<Float16>&,
                             int);
template void slice(const PermutohedralLattice&, const LatticeValues<float>&, const float*, int64_t,
                    int64_t, float*);
template void slice(const PermutohedralLattice&, const LatticeValues<Float16>&, const float*,
                    int64_t, int64_t, float*);

float lattice_gain(const PermutohedralLattice& lattice) {
  return 1.0f / (1.0f + std::exp2(static_cast<float>(1 - lattice.axes)));
}

void LatticeFilter::filter(const float* values, float* out, int64_t channels, int threads) const {
  const int64_t points = lattice_.points;
  const std::vector<float> gain(kTile, lattice_gain(lattice_));
  for (int64_t c = 0; c < channels; c += kLargestWidth) {
    const int64_t count = std::min<int64_t>(kLargestWidth, channels - c);
    const int width = width_for(count);
    Buffer<float> rows(points * width, 0.0f);
    LatticeValues<float> lattice_values(lattice_, width);
    for_tiles(points, threads, [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        std::copy_n(values + n * channels + c, count, rows.data() + n * width);
      }
    });
    splat_and_blur(lattice_, rows.data(), lattice_values, threads);
    for_tiles(points, threads, [&](int64_t first, int64_t last) {
      float* sliced = rows.data() + first * width;
      std::fill_n(sliced, (last - first) * width, 0.0f);
      slice(lattice_, lattice_values, gain.data(), first, last, sliced);
      for (int64_t n = first; n < last; ++n) {
        std::copy_n(rows.data() + n * width, count, out + n * channels + c);
      }
    });
  }
}

}  // namespace c2am
