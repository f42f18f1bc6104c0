// Mean-field inference in a fully connected CRF (Krahenbuhl & Koltun 2011) with a spatial and a
// bilateral Gaussian kernel and Potts compatibilities:
//
//   Q <- softmax(-U + sum over kernels of compat * n_i sum_j k_ij n_j Q_j),
//   n_i = (sum_j k_ij + 1e-20)^-1/2, self term included; Q starts as softmax(-U).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "buffer.h"
#include "dense_crf/bilateral.h"

namespace c2am {

struct DenseCrfKernels {
  double gaussian_sxy, gaussian_compat;
  double bilateral_sxy, bilateral_srgb, bilateral_compat;
};

// The spatial kernel along one axis.
struct SpatialAxis {
  SpatialAxis(double sigma, int64_t extent);

  std::vector<float> taps;  // (2 r + 1,) k at distances -r .. r
  int64_t radius;
  std::vector<float> norm;  // (extent,) n_i
};

// The kernels of one image, for any number of unaries on it.
class DenseCrf {
 public:
  // image: (H, W, 3) uint8. exact: sum the bilateral kernel over all pairs of pixels, in O(N^2).
  DenseCrf(const uint8_t* image, int64_t height, int64_t width, const DenseCrfKernels& kernels,
           bool exact, int threads);

  // unary: (C, H, W) energies. Gives either marginals: (C, H, W) or labels: (H, W), the class of
  // the largest; the other one is null. The result does not depend on `threads`.
  // half: store what pixels read from the lattice in 16 bits.
  void run(const float* unary, float* marginals, uint8_t* labels, int64_t classes,
           int64_t iterations, bool half, int threads) const;

 private:
  struct State;
  struct Result;
  struct Rows;
  void filter_columns(const State& s, int64_t group, int64_t y, int count, float* to) const;
  void filter_row(const State& s, const float* from, float* to) const;
  void add_messages(const State& s, int64_t y, int count, Rows& rows) const;
  void update_rows(State& s, int64_t y, int count, bool first_time, const Result* last,
                   Rows& rows) const;
  void update(State& s, bool first_time, const Result* last) const;

  int64_t height_, width_;
  std::unique_ptr<const Bilateral> bilateral_;
  SpatialAxis across_, down_;
  float gaussian_compat_;
};

}  // namespace c2am
