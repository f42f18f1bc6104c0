// The bilateral kernel, k_ij = exp(-|f_i - f_j|^2 / 2) for the features of pixels, and its
// messages.
#pragma once

#include <cstdint>
#include <memory>

#include "buffer.h"
#include "dense_crf/features.h"

namespace c2am {

class Bilateral {
 public:
  // Some channels on their way to become messages.
  class Pass {
   public:
    virtual ~Pass() = default;
    // from, scale: (N, width) and (N,), of which scale * from is n_j Q_j.
    virtual void filter(const float* from, const float* scale, int threads) = 0;
    // Adds compat * n_i sum_j k_ij n_j Q_j to the pixels first .. last - 1, with which `to` begins.
    virtual void add(int64_t first, int64_t last, float* to) const = 0;
  };

  virtual ~Bilateral() = default;
  // See row.h for the widths. half: store the values of a lattice's vertices in 16 bits.
  virtual std::unique_ptr<Pass> pass(int width, bool half) const = 0;
  const float* norm() const { return norm_.data(); }  // (N,) n

 protected:
  explicit Bilateral(int64_t points) : norm_(points, 0.0f), scale_(points) {}
  // Turns norm_ from sum_j k_ij into n_i, and sets scale_ to compat * gain * n_i.
  void normalise(double compat, double gain, int threads);

  Buffer<float> norm_, scale_;  // (N,)
};

// On the permutohedral lattice.
std::unique_ptr<const Bilateral> lattice_bilateral(const Features& features, double compat,
                                                   int threads);
// The sum over all pairs of pixels, in O(N^2).
std::unique_ptr<const Bilateral> exact_bilateral(const Features& features, double compat,
                                                 int threads);

}  // namespace c2am
