#include <algorithm>
#include <cmath>
#include <vector>

#include "dense_crf/bilateral.h"
#include "dense_crf/lattice_filter.h"

namespace c2am {
namespace {

template <typename T>
class LatticePass : public Bilateral::Pass {
 public:
  LatticePass(const PermutohedralLattice& lattice, const float* scale, int width)
      : lattice_(lattice), scale_(scale), values_(lattice, width) {}

  void filter(const float* from, const float* scale, int threads) override {
    splat_and_blur(lattice_, from, scale, values_, threads);
  }
  void add(int64_t first, int64_t last, float* to) const override {
    slice(lattice_, values_, scale_ + first, first, last, to);
  }

 private:
  const PermutohedralLattice& lattice_;
  const float* scale_;
  LatticeValues<T> values_;
};

class LatticeBilateral : public Bilateral {
 public:
  LatticeBilateral(const Features& features, double compat, int threads)
      : Bilateral(features.points), lattice_(features, threads) {
    constexpr int64_t kTile = 512;
    const std::vector<float> gain(kTile, lattice_gain(lattice_));
    LatticeValues<float> sums(lattice_, 1);
    splat_and_blur(lattice_, nullptr, nullptr, sums, threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < lattice_.points; first += kTile) {
      const int64_t last = std::min(first + kTile, lattice_.points);
      slice(lattice_, sums, gain.data(), first, last, norm_.data() + first);
    }
    normalise(compat, gain[0], threads);
  }

  std::unique_ptr<Pass> pass(int width, bool half) const override {
    if (half) return std::make_unique<LatticePass<Float16>>(lattice_, scale_.data(), width);
    return std::make_unique<LatticePass<float>>(lattice_, scale_.data(), width);
  }

 private:
  PermutohedralLattice lattice_;
};

}  // namespace

void Bilateral::normalise(double compat, double gain, int threads) {
  constexpr float kNormEpsilon = 1e-20f;
  const auto factor = static_cast<float>(compat * gain);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t n = 0; n < norm_.size(); ++n) {
    norm_[n] = 1 / std::sqrt(norm_[n] + kNormEpsilon);
    scale_[n] = factor * norm_[n];
  }
}

std::unique_ptr<const Bilateral> lattice_bilateral(const Features& features, double compat,
                                                   int threads) {
  return std::make_unique<LatticeBilateral>(features, compat, threads);
}

}  // namespace c2am
