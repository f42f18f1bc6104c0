#include "dense_crf/lattice_filter.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "dense_crf/loops.h"
#include "dense_crf/row.h"
#include "shared_loop.h"

namespace c2am {
namespace {

constexpr int64_t kTile = 1024;  // points or values of one task

// Calls body(first, last) for all tiles of begin .. end - 1.
template <typename Body>
void for_tiles(int64_t begin, int64_t end, int threads, const Body& body) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t first = begin; first < end; first += kTile) {
    body(first, std::min(first + kTile, end));
  }
}

// Adds the points of every other slab, whose simplices have no vertex in common, then the others.
void splat(const PermutohedralLattice& lattice, const float* from, const float* scale, int width,
           float* sums, int threads) {
  const auto slabs = static_cast<int64_t>(lattice.spans.size());
  const auto begin = [&](int64_t slab) {
    return sums + int64_t{lattice.slabs[std::min(slab, slabs)]} * width;
  };
  for (int64_t odd = 0; odd < 2; ++odd) {
    shared_loop((slabs + 1 - odd) / 2, threads, [&](int64_t task, int) {
      const int64_t slab = 2 * task + odd;
      if (odd == 0) std::fill(begin(slab), begin(slab + 2), 0.0f);
      const auto& spans = lattice.spans[slab];
      loops::splat(width, lattice.axes, lattice.corner.data(), lattice.weight.data(), spans.data(),
                   static_cast<int64_t>(spans.size()), from, scale, sums);
    });
  }
}

// Blurs along one axis after the other, the last ones block by block: only the axes 0, 1 and 2 lead
// out of a block.
void blur(const PermutohedralLattice& lattice, int width, float* values, int threads) {
  const auto starts = static_cast<int64_t>(lattice.blocks.size());
  const auto along = [&](int axis, int64_t block) {
    loops::blur(width, lattice.chains.data() + lattice.chain_starts[axis * starts + block], values);
  };
  // Where a thread's blocks begin, so that all have about as many entries of an axis.
  const auto first = [&](int axis, int thread) {
    const int64_t* start = lattice.chain_starts.data() + axis * starts;
    const int64_t entries = start[starts - 1] - start[0];
    return std::lower_bound(start, start + starts, start[0] + entries * thread / threads) - start;
  };
  const int leading = std::min(lattice.axes, 3);
#pragma omp parallel num_threads(threads)
  {
    for (int axis = 0; axis < leading; ++axis) {
#pragma omp for schedule(static)
      for (int t = 0; t < threads; ++t) {
        for (int64_t b = first(axis, t); b < first(axis, t + 1); ++b) along(axis, b);
      }
    }
#pragma omp for schedule(static)
    for (int t = 0; t < threads; ++t) {
      for (int64_t b = first(lattice.axes - 1, t); b < first(lattice.axes - 1, t + 1); ++b) {
        for (int axis = leading; axis < lattice.axes; ++axis) along(axis, b);
      }
    }
  }
}

}  // namespace

template <typename T>
void splat_and_blur(const PermutohedralLattice& lattice, const float* from, const float* scale,
                    LatticeValues<T>& to, int threads) {
  std::fill_n(to.sums.data(), to.width, 0.0f);  // of the missing vertex
  splat(lattice, from, scale, to.width, to.sums.data(), threads);
  blur(lattice, to.width, to.sums.data(), threads);
  if constexpr (!std::is_same<T, float>::value) {
    for_tiles(0, to.sums.size(), threads, [&](int64_t first, int64_t last) {
      loops::round_values(to.sums.data() + first, to.rounded.data() + first, last - first);
    });
  }
}

template <typename T>
void slice(const PermutohedralLattice& lattice, const LatticeValues<T>& from, const float* scale,
           int64_t first, int64_t last, float* to) {
  loops::slice(from.width, lattice.axes, lattice.corner.data(), lattice.weight.data(), scale,
               from.blurred(), to, first, last);
}

template void splat_and_blur(const PermutohedralLattice&, const float*, const float*,
                             LatticeValues<float>&, int);
template void splat_and_blur(const PermutohedralLattice&, const float*, const float*,
                             LatticeValues<Float16>&, int);
template void slice(const PermutohedralLattice&, const LatticeValues<float>&, const float*, int64_t,
                    int64_t, float*);
template void slice(const PermutohedralLattice&, const LatticeValues<Float16>&, const float*,
                    int64_t, int64_t, float*);

float lattice_gain(const PermutohedralLattice& lattice) {
  return 1.0f / (1.0f + std::exp2(static_cast<float>(1 - lattice.axes)));
}

}  // namespace c2am
