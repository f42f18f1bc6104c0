#include <algorithm>
#include <cmath>
#include <limits>

#include "dense_crf/dense_crf.h"
#include "dense_crf/features.h"
#include "dense_crf/lattice_filter.h"
#include "dense_crf/loops.h"
#include "dense_crf/row.h"
#include "dense_crf/update.h"

namespace c2am {
namespace {

constexpr double kNormEpsilon = 1e-20;
constexpr float kPadding = -1e30f;  // relative unary of a channel without a class: its Q is 0

// Weights of a Gaussian at -r .. r, as far as float32 tells them from 0 beside the 1 in the middle,
// and no further than a side of `extent` pixels reaches.
std::vector<float> gaussian_taps(double sigma, int64_t extent) {
  const double epsilon = std::numeric_limits<float>::epsilon();
  const auto radius = std::min<int64_t>(
      extent - 1, static_cast<int64_t>(sigma * std::sqrt(-2 * std::log(epsilon))));
  std::vector<float> taps;
  for (int64_t t = -radius; t <= radius; ++t) {
    taps.push_back(static_cast<float>(std::exp(-0.5 * (t / sigma) * (t / sigma))));
  }
  return taps;
}

}  // namespace

// The spatial kernel is a product of one kernel per axis, and so is its normalisation.
SpatialAxis::SpatialAxis(double sigma, int64_t extent)
    : taps(gaussian_taps(sigma, extent)), radius(static_cast<int64_t>(taps.size() / 2)) {
  const auto filtered = [&](const std::vector<double>& values) {
    std::vector<double> sums(extent, 0.0);
    for (int64_t i = 0; i < extent; ++i) {
      const int64_t last = std::min(radius, extent - 1 - i);
      for (int64_t t = std::max(-radius, -i); t <= last; ++t) {
        sums[i] += taps[t + radius] * values[i + t];
      }
    }
    return sums;
  };
  std::vector<double> n;
  for (double sum : filtered(std::vector<double>(extent, 1.0))) {
    n.push_back(1 / std::sqrt(sum + kNormEpsilon));
  }
  const std::vector<double> sums = filtered(n);
  for (int64_t i = 0; i < extent; ++i) {
    norm.push_back(static_cast<float>(n[i]));
    total.push_back(static_cast<float>(n[i] * sums[i]));
  }
}

// Buffers of one run. Channels, one less than classes, lie in groups of `width`: (groups, N,
// width).
struct DenseCrf::State {
  State(const PermutohedralLattice& lattice, int64_t classes, int threads)
      : channels(classes - 1),
        groups((channels + kLargestWidth - 1) / kLargestWidth),
        width(width_for((channels + groups - 1) / groups)),
        stride(lattice.points * width),
        threads(threads),
        relative_unary(groups * stride),
        marginals(groups * stride),
        rows(groups * stride),
        last(lattice.points) {
    for (int64_t g = 0; g < groups; ++g) values.emplace_back(lattice, width);
  }

  int64_t channels, groups;
  int width;
  int64_t stride;
  int threads;
  Buffer<float> relative_unary;       // U_last - U
  Buffer<float> marginals;            // Q
  Buffer<float> rows;                 // Q filtered along the rows
  Buffer<float> last;                 // (N,) Q of the last class
  std::vector<LatticeValues> values;  // per group
};

DenseCrf::DenseCrf(const uint8_t* image, int64_t height, int64_t width,
                   const DenseCrfKernels& kernels, int threads)
    : height_(height),
      width_(width),
      lattice_(image_features(image, height, width, kernels.bilateral_sxy, kernels.bilateral_srgb),
               threads),
      across_(kernels.gaussian_sxy, width),
      down_(kernels.gaussian_sxy, height),
      gaussian_compat_(static_cast<float>(kernels.gaussian_compat)),
      total_(height * width) {
  normalise(kernels.bilateral_compat, threads);
}

// Moves n_j into the weights of splatting, and compat * n_i and the gain into those of slicing.
void DenseCrf::normalise(double compat, int threads) {
  const int64_t pixels = height_ * width_;
  const int corners = lattice_.axes;
  const float gain = lattice_gain(lattice_);
  const Buffer<float> ones(pixels, 1.0f);
  LatticeValues values(lattice_, 1);
  Buffer<float> norm(pixels, 0.0f);
  splat_and_blur(lattice_, 1, ones.data(), values, threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t y = 0; y < height_; ++y) {
    slice(values, 1, y, norm.data() + y * width_);
    for (int64_t n = y * width_; n < (y + 1) * width_; ++n) {
      norm[n] = static_cast<float>(1 / std::sqrt(double{gain} * norm[n] + kNormEpsilon));
      const float scale = static_cast<float>(compat) * gain * norm[n];
      for (int k = 0; k < corners; ++k) lattice_.weight[n * corners + k] *= scale;
    }
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t e = 0; e < lattice_.entries.size(); ++e) {
    lattice_.entries[e].weight *= norm[lattice_.entries[e].point];
  }
  splat_and_blur(lattice_, 1, ones.data(), values, threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t y = 0; y < height_; ++y) {
    float* total = total_.data() + y * width_;
    for (int64_t x = 0; x < width_; ++x) {
      total[x] = gaussian_compat_ * down_.total[y] * across_.total[x];
    }
    slice(values, 1, y, total);
  }
}

// Adds the messages of the bilateral kernel to the pixels of row y.
void DenseCrf::slice(const LatticeValues& values, int width, int64_t y, float* to) const {
  loops::slice(width, lattice_.axes, lattice_.corner.data(), lattice_.weight.data(),
               values.values.data(), to, y * width_, (y + 1) * width_);
}

// rows = sum over a row of n_i k_ij n_j Q_j.
void DenseCrf::filter_rows(State& s) const {
  const int64_t margin = across_.radius * s.width;
  const auto count = static_cast<int64_t>(across_.taps.size());
#pragma omp parallel num_threads(s.threads)
  {
    std::vector<float> padded(width_ * s.width + 2 * margin, 0.0f);
#pragma omp for collapse(2) schedule(static)
    for (int64_t g = 0; g < s.groups; ++g) {
      for (int64_t y = 0; y < height_; ++y) {
        const int64_t at = g * s.stride + y * width_ * s.width;
        loops::scale_pixels(s.width, across_.norm.data(), s.marginals.data() + at,
                            padded.data() + margin, width_);
        loops::correlate(padded.data(), s.width, across_.taps.data(), count, s.rows.data() + at,
                         width_ * s.width);
        loops::scale_pixels(s.width, across_.norm.data(), s.rows.data() + at, s.rows.data() + at,
                            width_);
      }
    }
  }
}

// Sets the messages of the spatial kernel for the pixels of row y.
void DenseCrf::filter_columns(const State& s, int64_t group, int64_t y, float* to) const {
  const int64_t row_floats = width_ * s.width;
  const int64_t first = std::max<int64_t>(y - down_.radius, 0);
  const int64_t last = std::min(y + down_.radius, height_ - 1);
  std::vector<float> taps;
  for (int64_t other = first; other <= last; ++other) {
    taps.push_back(gaussian_compat_ * down_.norm[y] * down_.norm[other] *
                   down_.taps[other - y + down_.radius]);
  }
  loops::correlate(s.rows.data() + group * s.stride + first * row_floats, row_floats, taps.data(),
                   static_cast<int64_t>(taps.size()), to, row_floats);
}

// Q = softmax(-U + messages), row by row; the last time arg max instead where labels are wanted.
void DenseCrf::update(State& s, bool with_messages, uint8_t* labels) const {
  const loops::Pixels row{s.width, s.groups, width_};
  const int64_t row_floats = width_ * s.width, pixels = height_ * width_;
  const std::vector<float> no_total(width_, 0.0f);
#pragma omp parallel num_threads(s.threads)
  {
    Buffer<float> logits(s.groups * row_floats);
#pragma omp for schedule(static)
    for (int64_t y = 0; y < height_; ++y) {
      for (int64_t g = 0; g < s.groups; ++g) {
        float* messages = logits.data() + g * row_floats;
        if (with_messages) {
          filter_columns(s, g, y, messages);
          slice(s.values[g], s.width, y, messages);
        } else {
          std::fill_n(messages, row_floats, 0.0f);
        }
      }
      const float* total = with_messages ? total_.data() + y * width_ : no_total.data();
      float* last = s.last.data() + y * width_;
      loops::to_logits(row, total, s.relative_unary.data() + y * row_floats, pixels, logits.data(),
                       last);
      if (labels != nullptr) {
        loops::arg_max(row, s.channels, logits.data(), last, labels + y * width_);
        continue;
      }
      loops::exponentials(logits.data(), s.groups * row_floats);
      loops::exponentials(last, width_);
      loops::normalise(row, logits.data(), s.marginals.data() + y * row_floats, pixels, last);
    }
  }
}

void DenseCrf::load(State& s, const float* unary) const {
  const int64_t pixels = height_ * width_;
  const float* unary_last = unary + s.channels * pixels;
#pragma omp parallel for num_threads(s.threads) schedule(static)
  for (int64_t y = 0; y < height_; ++y) {
    for (int64_t c = 0; c < s.groups * s.width; ++c) {
      float* to = s.relative_unary.data() + c / s.width * s.stride + c % s.width;
      const float* from = unary + c * pixels;
      for (int64_t n = y * width_; n < (y + 1) * width_; ++n) {
        to[n * s.width] = c < s.channels ? unary_last[n] - from[n] : kPadding;
      }
    }
  }
}

void DenseCrf::write_marginals(const State& s, float* marginals) const {
  const int64_t pixels = height_ * width_;
#pragma omp parallel for num_threads(s.threads) schedule(static)
  for (int64_t y = 0; y < height_; ++y) {
    for (int64_t c = 0; c < s.channels; ++c) {
      const float* from = s.marginals.data() + c / s.width * s.stride + c % s.width;
      for (int64_t n = y * width_; n < (y + 1) * width_; ++n) {
        marginals[c * pixels + n] = from[n * s.width];
      }
    }
    std::copy_n(s.last.data() + y * width_, width_, marginals + s.channels * pixels + y * width_);
  }
}

void DenseCrf::run(const float* unary, float* marginals, uint8_t* labels, int64_t classes,
                   int64_t iterations, int threads) const {
  const int64_t pixels = height_ * width_;
  if (classes == 1) {
    if (marginals != nullptr) std::fill_n(marginals, pixels, 1.0f);
    if (labels != nullptr) std::fill_n(labels, pixels, uint8_t{0});
    return;
  }
  State s(lattice_, classes, threads);
  load(s, unary);
  for (int64_t i = 0; i <= iterations; ++i) {
    if (i > 0) {
      filter_rows(s);
      for (int64_t g = 0; g < s.groups; ++g) {
        splat_and_blur(lattice_, s.width, s.marginals.data() + g * s.stride, s.values[g], threads);
      }
    }
    update(s, i > 0, i == iterations ? labels : nullptr);
  }
  if (marginals != nullptr) write_marginals(s, marginals);
}

}  // namespace c2am
