#include <algorithm>

#include "dense_crf/bilateral.h"
#include "dense_crf/exponential.h"

namespace c2am {
namespace {

constexpr int kLanes = 16;    // pixels i whose sums are formed together
constexpr int kBlock = 64;    // pixels j that their kernel values are kept for
constexpr int kChannels = 4;  // whose sums stay in registers
constexpr int kMaxWidth = 32;

// sums: (16, width) += sum over j of k_ij values_j, for the 16 pixels i from `first` on.
// features: (d, stride), values: (points, width), of which those from j_first to j_last count.
C2AM_INLINE void exact_sums_body(int dimension, const double* features, int64_t stride, int width,
                                 const float* values, int64_t first, int64_t j_first,
                                 int64_t j_last, float* sums) {
  using V = Vector<kLanes>;
  V kernel[kBlock];
  Vector<kLanes, double> difference;
  for (int64_t j = j_first; j < j_last; ++j) {
    V exponent = {};
    for (int f = 0; f < dimension; ++f) {
      load(difference, features + f * stride + first);
      difference -= features[f * stride + j];
      const V rounded = __builtin_convertvector(difference, V);
      exponent -= rounded * rounded;
    }
    exponent *= 0.5f;
    exponential<kLanes>(exponent);
    kernel[j - j_first] = exponent;
  }
  for (int c = 0; c < width; c += kChannels) {
    const int count = width - c < kChannels ? width - c : kChannels;
    V sum[kChannels] = {};
    for (int64_t j = j_first; j < j_last; ++j) {
      for (int k = 0; k < count; ++k) sum[k] += values[j * width + c + k] * kernel[j - j_first];
    }
    for (int k = 0; k < count; ++k) {
      for (int i = 0; i < kLanes; ++i) sums[i * width + c + k] += sum[k][i];
    }
  }
}

C2AM_DISPATCH(exact_sums,
              (int dimension, const double* features, int64_t stride, int width,
               const float* values, int64_t first, int64_t j_first, int64_t j_last, float* sums),
              (dimension, features, stride, width, values, first, j_first, j_last, sums))

class ExactBilateral : public Bilateral {
 public:
  ExactBilateral(const Features& features, double compat, int threads)
      : Bilateral(features.points),
        dimension_(features.dimension),
        points_(features.points),
        stride_((features.points + kLanes - 1) / kLanes * kLanes),
        features_(features.dimension * stride_, 0.0) {
    features.read(0, points_, features_.data(), stride_);
    const Buffer<float> ones(points_, 1.0f);
    filter(1, ones.data(), norm_.data(), threads);
    normalise(compat, 1, threads);
  }

  std::unique_ptr<Pass> pass(int width, bool) const override {
    return std::make_unique<ExactPass>(*this, width);
  }

 private:
  class ExactPass : public Pass {
   public:
    ExactPass(const ExactBilateral& kernel, int width)
        : kernel_(kernel),
          width_(width),
          scaled_(kernel.points_ * width),
          sums_(kernel.points_ * width) {}

    void filter(const float* from, const float* scale, int threads) override {
#pragma omp parallel for num_threads(threads) schedule(static)
      for (int64_t i = 0; i < scaled_.size(); ++i) scaled_[i] = scale[i / width_] * from[i];
      kernel_.filter(width_, scaled_.data(), sums_.data(), threads);
    }
    void add(int64_t first, int64_t last, float* to) const override {
      for (int64_t i = first * width_; i < last * width_; ++i) {
        *to++ += kernel_.scale_[i / width_] * sums_[i];
      }
    }

   private:
    const ExactBilateral& kernel_;
    int width_;
    Buffer<float> scaled_, sums_;  // (N, width)
  };

  // to_i = sum over j of k_ij values_j. values, to: (N, width).
  void filter(int width, const float* values, float* to, int threads) const {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < points_; first += kLanes) {
      float sums[kLanes * kMaxWidth] = {};
      for (int64_t j = 0; j < points_; j += kBlock) {
        exact_sums(dimension_, features_.data(), stride_, width, values, first, j,
                   std::min(j + kBlock, points_), sums);
      }
      std::copy_n(sums, std::min<int64_t>(kLanes, points_ - first) * width, to + first * width);
    }
  }

  int dimension_;
  int64_t points_, stride_;
  Buffer<double> features_;  // (d, stride), whose differences are small beside them
};

}  // namespace

std::unique_ptr<const Bilateral> exact_bilateral(const Features& features, double compat,
                                                 int threads) {
  return std::make_unique<ExactBilateral>(features, compat, threads);
}

}  // namespace c2am
