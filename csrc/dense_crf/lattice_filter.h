// Gaussian filtering on the permutohedral lattice.
#pragma once

#include <cstdint>

#include "buffer.h"
#include "dense_crf/permutohedral.h"

namespace c2am {

// What splatting and blurring need: the result is in `values`, to be sliced.
struct LatticeValues {
  LatticeValues() = default;
  LatticeValues(const PermutohedralLattice& lattice, int width)
      : values((lattice.vertices + 1) * width), scratch((lattice.vertices + 1) * width) {}

  Buffer<float> values, scratch;  // (M + 1, width)
};

// The filter without the gain. from: (N, width); see row.h for the widths.
void splat_and_blur(const PermutohedralLattice& lattice, int width, const float* from,
                    LatticeValues& to, int threads);

// Multiplies the weights of splatting by norm: (N,), and filters values of 1 (width 1).
void splat_norm_and_blur(PermutohedralLattice& lattice, const float* norm, LatticeValues& to,
                         int threads);

// The blur enlarges by a constant, which the result is to be multiplied by (as released by Adams
// et al.).
float lattice_gain(const PermutohedralLattice& lattice);

// out_i = sum over j of exp(-|f_i - f_j|^2 / 2) values_j, approximately, not normalised.
class LatticeFilter {
 public:
  // features: (N, d) finite, in standard deviations
  LatticeFilter(const float* features, int64_t points, int dimension, int threads)
      : lattice_(point_features(features, points, dimension), threads) {}

  // values, out: (N, channels)
  void filter(const float* values, float* out, int64_t channels, int threads) const;

 private:
  PermutohedralLattice lattice_;
};

}  // namespace c2am
