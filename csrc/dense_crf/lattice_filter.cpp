#include "dense_crf/lattice_filter.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "dense_crf/loops.h"
#include "dense_crf/row.h"

namespace c2am {
namespace {

constexpr int64_t kTile = 1024;               // vertices or points of one task
constexpr int64_t kStrip = int64_t{1} << 20;  // bytes of vertices, of which cache holds some strips

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
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t slab = odd; slab < slabs; slab += 2) {
      if (odd == 0) std::fill(begin(slab), begin(slab + 2), 0.0f);
      const auto& spans = lattice.spans[slab];
      loops::splat(width, lattice.axes, lattice.corner.data(), lattice.weight.data(), spans.data(),
                   static_cast<int64_t>(spans.size()), from, scale, sums);
    }
  }
}

// Where strips of whole slabs begin, each of several tiles for every thread.
std::vector<int64_t> strips_of(const PermutohedralLattice& lattice, int width, int threads) {
  const int64_t least =
      std::max(kStrip / (width * static_cast<int64_t>(sizeof(float))), 4 * kTile * threads);
  std::vector<int64_t> starts(1, lattice.slabs.front());
  for (const int32_t slab : lattice.slabs) {
    if (slab - starts.back() >= least) starts.push_back(slab);
  }
  if (starts.back() <= lattice.vertices) starts.push_back(lattice.vertices + 1);
  return starts;
}

// Calls along(axis, first, last) for the blocks between two vertices and the axes that stay within
// a block, one after the other while it is in the cache of a core.
template <typename Along>
void blur_blocks(const PermutohedralLattice& lattice, int64_t begin, int64_t end, int threads,
                 const Along& along) {
  const auto& blocks = lattice.blocks;
  const auto index = [&](int64_t v) {
    return std::lower_bound(blocks.begin(), blocks.end(), v) - blocks.begin();
  };
  const int64_t from = index(begin), to = index(end);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int64_t b = from; b < to; ++b) {
    for (int axis = 3; axis < lattice.axes; ++axis) along(axis, blocks[b], blocks[b + 1]);
  }
}

// Blurs along the axes one strip after the other, each axis a strip behind the one before it, so
// that what it reads is still in cache. Only the axes 0 and 1 lead out of a strip, to the next
// ones.
template <typename T>
void blur(const PermutohedralLattice& lattice, LatticeValues<T>& to, int threads) {
  const int width = to.width;
  const auto neighbours = [&](int axis) {
    return lattice.neighbours.data() + axis * (lattice.vertices + 1) * 2;
  };
  // What is narrower than the sums takes their place from behind the missing vertex, whose values
  // are 0 in all arrays: no element is written before the sums there were read.
  T *now = to.values.data(), *next = reinterpret_cast<T*>(to.sums.data());
  next += (sizeof(float) / sizeof(T) - 1) * width;
  std::fill_n(to.sums.data(), width, 0.0f);
  std::fill_n(now, width, T{});
  const auto out_of = [&](int axis) { return axis % 2 == 0 ? now : next; };
  const auto along = [&](int axis, int64_t first, int64_t last) {
    loops::blur(width, neighbours(axis), out_of(axis + 1), out_of(axis), first, last);
  };
  const std::vector<int64_t> starts = strips_of(lattice, width, threads);
  const auto strips = static_cast<int64_t>(starts.size()) - 1;
  for (int64_t strip = 0; strip < strips + 2; ++strip) {
    if (strip < strips) {
      for_tiles(starts[strip], starts[strip + 1], threads, [&](int64_t first, int64_t last) {
        loops::blur(width, neighbours(0), to.sums.data(), now, first, last);
      });
    }
    for (int axis = 1; axis < std::min(lattice.axes, 3); ++axis) {
      const int64_t behind = strip - axis;
      if (behind < 0 || behind >= strips) continue;
      for_tiles(starts[behind], starts[behind + 1], threads,
                [&](int64_t first, int64_t last) { along(axis, first, last); });
    }
    if (strip >= 2) blur_blocks(lattice, starts[strip - 2], starts[strip - 1], threads, along);
  }
  to.blurred = out_of(lattice.axes - 1);
}

}  // namespace

template <typename T>
void splat_and_blur(const PermutohedralLattice& lattice, const float* from, const float* scale,
                    LatticeValues<T>& to, int threads) {
  splat(lattice, from, scale, to.width, to.sums.data(), threads);
  blur(lattice, to, threads);
}

template <typename T>
void slice(const PermutohedralLattice& lattice, const LatticeValues<T>& from, const float* scale,
           int64_t first, int64_t last, float* to) {
  loops::slice(from.width, lattice.axes, lattice.corner.data(), lattice.weight.data(), scale,
               from.blurred, to, first, last);
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
