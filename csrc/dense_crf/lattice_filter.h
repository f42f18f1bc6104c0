// Gaussian filtering on the permutohedral lattice.
#pragma once

#include <cstdint>
#include <type_traits>

#include "buffer.h"
#include "dense_crf/permutohedral.h"
#include "dense_crf/row.h"

namespace c2am {

// Values of the vertices on their way through the filter, which is in float; T, float or Float16,
// is the type of those that are read at the end, d + 1 rows for each point.
template <typename T>
struct LatticeValues {
  LatticeValues(const PermutohedralLattice& lattice, int width)
      : width(width),
        sums((lattice.vertices + 1) * width),
        rounded(std::is_same<T, float>::value ? 0 : sums.size()) {}

  const T* blurred() const {
    if constexpr (std::is_same<T, float>::value) return sums.data();
    return rounded.data();
  }

  int width;           // see row.h
  Buffer<float> sums;  // (M + 1, width) what is splatted and blurred
  Buffer<T> rounded;   // (M + 1, width) the same, if T is not float
};

// The filter of scale * from up to its last step, without the gain. from: (N, width), or null for
// (N, 1) ones; scale: (N,), or null for ones.
template <typename T>
void splat_and_blur(const PermutohedralLattice& lattice, const float* from, const float* scale,
                    LatticeValues<T>& to, int threads);

// The last step: adds scale * the filtered values to the points first .. last - 1, with which
// `scale` and `to` begin.
template <typename T>
void slice(const PermutohedralLattice& lattice, const LatticeValues<T>& from, const float* scale,
           int64_t first, int64_t last, float* to);

// The blur enlarges by a constant, which the result is to be multiplied by (as released by Adams
// et al.).
float lattice_gain(const PermutohedralLattice& lattice);

}  // namespace c2am
