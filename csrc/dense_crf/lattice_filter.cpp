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

// Blurs to.values.
template <typename T>
void blur(const PermutohedralLattice& lattice, LatticeValues<T>& to, int threads) {
  const int width = to.width;
  const int64_t rows = lattice.vertices + 1;  // with the missing vertex, whose values are 0
  const auto neighbours = [&](int axis) { return lattice.neighbours.data() + axis * rows * 2; };
  T *now = to.values.data(), *next = to.scratch.data();
  std::fill_n(now, width, T{0});
  const int leading = std::min(lattice.axes, 3);
  for (int axis = 0; axis < leading; ++axis) {
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
  if (lattice.axes % 2 != 0) std::swap(to.values, to.scratch);
}

}  // namespace

template <typename T>
void splat_and_blur(const PermutohedralLattice& lattice, const float* from, LatticeValues<T>& to,
                    int threads) {
  for_tiles(lattice.vertices, threads, [&](int64_t first, int64_t last) {
    loops::splat(to.width, lattice.groups.data(), lattice.entries.data(), from, to.values.data(),
                 lattice.start[first + 1], lattice.start[last + 1]);
  });
  blur(lattice, to, threads);
}

template <typename T>
void slice(const PermutohedralLattice& lattice, const LatticeValues<T>& from, const float* scale,
           int64_t first, int64_t last, float* to) {
  loops::slice(from.width, lattice.axes, lattice.corner.data(), lattice.weight.data(), scale,
               from.values.data(), to, first, last);
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
