// Gaussian kernels between points, k_ij, as filters of channels that lie in rows (see row.h).
#pragma once

#include <cstdint>
#include <memory>

namespace c2am {

class Kernel {
 public:
  // Some channels on their way through the filter.
  class Pass {
   public:
    virtual ~Pass() = default;
    // values: (N, width), scale: (N,), of which scale * values is filtered.
    virtual void filter(const float* values, const float* scale, int threads) = 0;
    // Adds scale_i * sum_j k_ij (what was filtered)_j to the points first .. last - 1, with which
    // `scale` and `to` begin.
    virtual void add(int64_t first, int64_t last, const float* scale, float* to) const = 0;
  };

  virtual ~Kernel() = default;
  virtual std::unique_ptr<Pass> pass(int width) const = 0;
};

// exp(-|f_i - f_j|^2 / 2) on the permutohedral lattice, approximately. features: (d, N) finite, in
// standard deviations.
std::unique_ptr<const Kernel> lattice_kernel(const float* features, int64_t points, int dimension,
                                             int threads);
// The same of the positions in an image, row by row, exact. sx, sy: standard deviations in pixels.
std::unique_ptr<const Kernel> spatial_kernel(int64_t height, int64_t width, double sx, double sy);

}  // namespace c2am
