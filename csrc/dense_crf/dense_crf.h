// Mean-field inference in a fully connected CRF (Krahenbuhl & Koltun 2011) with a spatial and a
// bilateral Gaussian kernel and Potts compatibilities:
//
//   Q <- softmax(-U + sum over kernels of compat * n_i sum_j k_ij n_j Q_j),
//   n_i = (sum_j k_ij + 1e-20)^-1/2, self term included; Q starts as softmax(-U).
#pragma once

#include <cstdint>
#include <vector>

#include "dense_crf/permutohedral.h"

namespace c2am {

struct DenseCrfKernels {
  double gaussian_sxy, gaussian_compat;
  double bilateral_sxy, bilateral_srgb, bilateral_compat;
};

// The kernels of one image, for any number of unaries on it.
class DenseCrf {
 public:
  // image: (H, W, 3) uint8
  DenseCrf(const uint8_t* image, int64_t height, int64_t width, const DenseCrfKernels& kernels,
           int threads);

  // unary: (C, H, W) energies, marginals: (C, H, W). The result does not depend on `threads`.
  void run(const float* unary, float* marginals, int64_t classes, int64_t iterations,
           int threads) const;

  int64_t height() const { return height_; }
  int64_t width() const { return width_; }

 private:
  struct State;
  void filter_gaussian_rows(State& s) const;
  void filter_lattice(State& s) const;
  void update(State& s, bool with_messages) const;

  int64_t height_, width_;
  PermutohedralLattice lattice_;      // its weights carry n_j (splat), and compat * n_i (slice)
  std::vector<float> row_taps_;       // (2 r + 1,) spatial kernel along a row
  std::vector<float> column_taps_;    // and along a column
  std::vector<float> gaussian_norm_;  // (H, W) n of the spatial kernel
  float gaussian_compat_;
};

}  // namespace c2am
