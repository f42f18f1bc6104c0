#include <algorithm>
#include <cmath>
#include <limits>

#include "dense_crf/correlate.h"
#include "dense_crf/dense_crf.h"
#include "dense_crf/features.h"
#include "dense_crf/row.h"
#include "dense_crf/softmax.h"

namespace c2am {
namespace {

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
  State(const Bilateral& bilateral, const SpatialAxis& axis, int64_t pixels, int64_t classes,
        bool half, int threads)
      : channels(classes - 1),
        groups((channels + kLargestWidth - 1) / kLargestWidth),
        width(width_for((channels + groups - 1) / groups)),
        stride(pixels * width),
        threads(threads),
        relative_unary(groups * stride),
        marginals(groups * stride),
        rows(groups * stride),
        next_rows(groups * stride),
        last(pixels),
        row_norm(axis.norm.size() * width) {
    for (int64_t i = 0; i < row_norm.size(); ++i) row_norm[i] = axis.norm[i / width];
    for (int64_t g = 0; g < groups; ++g) bilateral_passes.push_back(bilateral.pass(width, half));
  }

  int64_t channels, groups;
  int width;
  int64_t stride;
  int threads;
  Buffer<float> relative_unary;   // U_last - U
  Buffer<float> marginals;        // Q
  Buffer<float> rows, next_rows;  // Q filtered along the rows, and that of the new Q
  Buffer<float> last;             // (N,) Q of the last class
  Buffer<float> row_norm;         // (W, width) n along a row, for all channels
  std::vector<std::unique_ptr<Bilateral::Pass>> bilateral_passes;  // per group
};

DenseCrf::DenseCrf(const uint8_t* image, int64_t height, int64_t width,
                   const DenseCrfKernels& kernels, bool exact, int threads)
    : height_(height),
      width_(width),
      across_(kernels.gaussian_sxy, width),
      down_(kernels.gaussian_sxy, height),
      gaussian_compat_(static_cast<float>(kernels.gaussian_compat)),
      total_(height * width) {
  const Features features =
      image_features(image, height, width, kernels.bilateral_sxy, kernels.bilateral_srgb);
  bilateral_ = exact ? exact_bilateral(features, kernels.bilateral_compat, threads)
                     : lattice_bilateral(features, kernels.bilateral_compat, threads);
  for (int64_t n = 0; n < height * width; ++n) {
    const float spatial = gaussian_compat_ * down_.total[n / width] * across_.total[n % width];
    total_[n] = spatial + bilateral_->total()[n];
  }
}

// to = sum over a row of n_i k_ij n_j Q_j. padded: one row, with zeros around it.
void DenseCrf::filter_row(const State& s, const float* marginals, float* padded, float* to) const {
  const int64_t row_floats = width_ * s.width, margin = across_.radius * s.width;
  const auto count = static_cast<int64_t>(across_.taps.size());
  loops::multiply(s.row_norm.data(), marginals, padded + margin, row_floats);
  loops::correlate(1, padded, s.width, across_.taps.data(), count, to, 0, row_floats);
  loops::multiply(s.row_norm.data(), to, to, row_floats);
}

// Sets the messages of the spatial kernel for the pixels of `count` rows from y on.
void DenseCrf::filter_columns(const State& s, int64_t group, int64_t y, int count,
                              float* to) const {
  const int64_t row_floats = width_ * s.width;
  const int64_t first = std::max<int64_t>(y - down_.radius, 0);
  const int64_t last = std::min(y + count - 1 + down_.radius, height_ - 1);
  std::vector<float> taps;
  for (int64_t other = first; other <= last; ++other) {
    for (int64_t row = y; row < y + count; ++row) {
      const bool within = std::abs(other - row) <= down_.radius;
      taps.push_back(!within ? 0.0f
                             : gaussian_compat_ * down_.norm[row] * down_.norm[other] *
                                   down_.taps[other - row + down_.radius]);
    }
  }
  loops::correlate(count, s.rows.data() + group * s.stride + first * row_floats, row_floats,
                   taps.data(), last - first + 1, to, s.groups * row_floats, row_floats);
}

// Q = softmax(-U + messages) for `count` rows; or the arg max, where labels are wanted.
void DenseCrf::update_rows(State& s, int64_t y, int count, bool with_messages, float* messages,
                           float* padded, uint8_t* labels) const {
  const int64_t row_floats = width_ * s.width;
  if (with_messages) {
    for (int64_t g = 0; g < s.groups; ++g) {
      filter_columns(s, g, y, count, messages + g * row_floats);
    }
  } else {
    std::fill_n(messages, count * s.groups * row_floats, 0.0f);
  }
  const std::vector<float> no_total(with_messages ? 0 : width_, 0.0f);
  for (const int64_t end = y + count; y < end; ++y, messages += s.groups * row_floats) {
    for (int64_t g = 0; with_messages && g < s.groups; ++g) {
      s.bilateral_passes[g]->add(y * width_, (y + 1) * width_, messages + g * row_floats);
    }
    const int64_t at = y * width_;
    const loops::Logits logits{s.width,
                               s.groups,
                               width_,
                               height_ * width_,
                               s.relative_unary.data() + y * row_floats,
                               with_messages ? total_.data() + at : no_total.data(),
                               messages};
    if (labels != nullptr) {
      loops::arg_max(logits, s.channels, s.last.data() + at, labels + at);
      continue;
    }
    loops::softmax(logits, s.marginals.data() + y * row_floats, s.last.data() + at);
    for (int64_t g = 0; g < s.groups; ++g) {
      const int64_t row = g * s.stride + y * row_floats;
      filter_row(s, s.marginals.data() + row, padded, s.next_rows.data() + row);
    }
  }
}

void DenseCrf::update(State& s, bool with_messages, uint8_t* labels) const {
  constexpr int64_t kRows = loops::kCorrelated;
  const int64_t whole = height_ / kRows, tasks = whole + height_ % kRows;
#pragma omp parallel num_threads(s.threads)
  {
    Buffer<float> messages(kRows * s.groups * width_ * s.width);
    Buffer<float> padded((width_ + 2 * across_.radius) * s.width, 0.0f);
#pragma omp for schedule(static)
    for (int64_t task = 0; task < tasks; ++task) {
      const bool several = task < whole;
      update_rows(s, several ? task * kRows : height_ - (tasks - task), several ? kRows : 1,
                  with_messages, messages.data(), padded.data(), labels);
    }
  }
  std::swap(s.rows, s.next_rows);
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
                   int64_t iterations, bool half, int threads) const {
  const int64_t pixels = height_ * width_;
  if (classes == 1) {
    if (marginals != nullptr) std::fill_n(marginals, pixels, 1.0f);
    if (labels != nullptr) std::fill_n(labels, pixels, uint8_t{0});
    return;
  }
  State s(*bilateral_, across_, pixels, classes, half, threads);
  load(s, unary);
  for (int64_t i = 0; i <= iterations; ++i) {
    if (i > 0) {
      for (int64_t g = 0; g < s.groups; ++g) {
        s.bilateral_passes[g]->filter(s.marginals.data() + g * s.stride, threads);
      }
    }
    update(s, i > 0, i == iterations ? labels : nullptr);
  }
  if (marginals != nullptr) write_marginals(s, marginals);
}

}  // namespace c2am
