#include <algorithm>

#include "dense_crf/kernel.h"
#include "dense_crf/lattice_filter.h"

namespace c2am {
namespace {

class LatticeKernel : public Kernel {
 public:
  LatticeKernel(const Features& features, int threads) : lattice_(features, threads) {}
  std::unique_ptr<Pass> pass(int width) const override;

 private:
  PermutohedralLattice lattice_;
};

class LatticePass : public Kernel::Pass {
 public:
  LatticePass(const PermutohedralLattice& lattice, int width)
      : lattice_(lattice), gain_(lattice_gain(lattice)), values_(lattice, width) {}

  void filter(const float* values, const float* scale, int threads) override {
    splat_and_blur(lattice_, values, scale, values_, threads);
  }

  void add(int64_t first, int64_t last, const float* scale, float* to) const override {
    constexpr int64_t kChunk = 256;
    float factor[kChunk];
    for (int64_t n = first; n < last; n += kChunk) {
      const int64_t end = std::min(n + kChunk, last);
      for (int64_t i = n; i < end; ++i) factor[i - n] = gain_ * scale[i - first];
      slice(lattice_, values_, factor, n, end, to + (n - first) * values_.width);
    }
  }

 private:
  const PermutohedralLattice& lattice_;
  float gain_;
  LatticeValues<float> values_;
};

std::unique_ptr<Kernel::Pass> LatticeKernel::pass(int width) const {
  return std::make_unique<LatticePass>(lattice_, width);
}

}  // namespace

std::unique_ptr<const Kernel> lattice_kernel(const float* features, int64_t points, int dimension,
                                             int threads) {
  return std::make_unique<LatticeKernel>(point_features(features, points, dimension), threads);
}

}  // namespace c2am
