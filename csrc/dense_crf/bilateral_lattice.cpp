#include <algorithm>
#include <cmath>

#include "dense_crf/bilateral.h"
#include "dense_crf/lattice_filter.h"

namespace c2am {
namespace {

constexpr int64_t kTile = 512;  // pixels of one task

template <typename T>
class LatticePass : public Bilateral::Pass {
 public:
  LatticePass(const PermutohedralLattice& lattice, int width)
      : lattice_(lattice), values_(lattice, width) {}

  void filter(const float* marginals, int threads) override {
    splat_and_blur(lattice_, marginals, values_, threads);
  }
  void add(int64_t first, int64_t last, float* to) const override {
    slice(lattice_, values_, first, last, to);
  }

 private:
  const PermutohedralLattice& lattice_;
  LatticeValues<T> values_;
};

class LatticeBilateral : public Bilateral {
 public:
  // Moves n_j into the weights of splatting, and compat * n_i and the gain into those of slicing.
  LatticeBilateral(const Features& features, double compat, int threads)
      : Bilateral(features.points), lattice_(features, threads) {
    const int64_t points = lattice_.points;
    const float gain = lattice_gain(lattice_);
    LatticeValues<float> values(lattice_, 1);
    Buffer<float> norm(points, 1.0f);
    splat_norm_and_blur(lattice_, norm.data(), values, threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < points; first += kTile) {
      const int64_t last = std::min(first + kTile, points);
      std::fill(norm.data() + first, norm.data() + last, 0.0f);
      slice(lattice_, values, first, last, norm.data() + first);
      for (int64_t n = first; n < last; ++n) {
        norm[n] = static_cast<float>(1 / std::sqrt(double{gain} * norm[n] + kNormEpsilon));
        const float scale = static_cast<float>(compat) * gain * norm[n];
        for (int k = 0; k < lattice_.axes; ++k) lattice_.weight[n * lattice_.axes + k] *= scale;
      }
    }
    splat_norm_and_blur(lattice_, norm.data(), values, threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < points; first += kTile) {
      slice(lattice_, values, first, std::min(first + kTile, points), total_.data() + first);
    }
  }

  std::unique_ptr<Pass> pass(int width, bool half) const override {
    if (half) return std::make_unique<LatticePass<ShortFloat>>(lattice_, width);
    return std::make_unique<LatticePass<float>>(lattice_, width);
  }

 private:
  PermutohedralLattice lattice_;
};

}  // namespace

std::unique_ptr<const Bilateral> lattice_bilateral(const Features& features, double compat,
                                                   int threads) {
  return std::make_unique<LatticeBilateral>(features, compat, threads);
}

}  // namespace c2am
