#include <algorithm>
#include <cmath>
#include <limits>

#include "dense_crf/dense_crf.h"
#include "dense_crf/loops.h"

namespace c2am {
namespace {

constexpr int kCorners = PermutohedralLattice::kCorners;
constexpr int64_t kTile = 1024;  // vertices of one task
constexpr double kNormEpsilon = 1e-20;

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

// Sum over j of the weights between pixel i and the pixels j of a side.
std::vector<double> tap_sums(const std::vector<float>& taps, int64_t extent) {
  const auto radius = static_cast<int64_t>(taps.size() / 2);
  std::vector<double> sums(extent, 0.0);
  for (int64_t i = 0; i < extent; ++i) {
    const int64_t last = std::min(radius, extent - 1 - i);
    for (int64_t t = std::max(-radius, -i); t <= last; ++t) sums[i] += taps[t + radius];
  }
  return sums;
}

// The blur's [1 2 1]/2 along each axis enlarges by a constant, which this undoes (as released by
// Adams et al.).
float lattice_gain() { return 1.0f / (1.0f + std::exp2(-static_cast<float>(kCorners - 1))); }

// One filtering: splat, blur along all axes, ready to slice. from: (N, width); returns the buffer,
// `values` or `scratch`, that holds the result: (M + 1, width).
float* splat_and_blur(const PermutohedralLattice& lattice, int width, const float* from,
                      std::vector<float>& values, std::vector<float>& scratch, int threads) {
  const int64_t vertices = lattice.vertices + 1;  // with the missing one, which has no entries
  const int64_t tiles = (vertices + kTile - 1) / kTile;
  float *now = values.data(), *next = scratch.data();
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = tile * kTile, last = std::min(first + kTile, vertices);
    loops::splat(width, lattice.start.data(), lattice.entry_pixel.data(),
                 lattice.entry_weight.data(), from, now, first, last);
  }
  for (int axis = 0; axis < kCorners; ++axis) {
    const int32_t* neighbours = lattice.neighbours.data() + axis * vertices * 2;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t first = tile * kTile, last = std::min(first + kTile, vertices);
      loops::blur(width, neighbours, now, next, first, last);
    }
    std::swap(now, next);
  }
  return now;
}

// Moves n_j into the splatting weights, and compat * n_i and the gain into the slicing ones.
void normalise(PermutohedralLattice& lattice, double compat, int threads) {
  constexpr int kWidth = 4;
  std::vector<float> ones(lattice.pixels * kWidth, 1.0f), sums(lattice.pixels * kWidth, 0.0f);
  std::vector<float> values((lattice.vertices + 1) * kWidth), scratch(values.size());
  const float* blurred = splat_and_blur(lattice, kWidth, ones.data(), values, scratch, threads);
  loops::slice(kWidth, lattice.corner.data(), lattice.weight.data(), blurred, sums.data(), 0,
               lattice.pixels);
  const float gain = lattice_gain();
  std::vector<float> norm(lattice.pixels);
  for (int64_t n = 0; n < lattice.pixels; ++n) {
    norm[n] = static_cast<float>(1 / std::sqrt(sums[n * kWidth] * gain + kNormEpsilon));
    const float scale = static_cast<float>(compat) * gain * norm[n];
    for (int k = 0; k < kCorners; ++k) lattice.weight[n * kCorners + k] *= scale;
  }
  for (size_t e = 0; e < lattice.entry_pixel.size(); ++e) {
    lattice.entry_weight[e] *= norm[lattice.entry_pixel[e]];
  }
}

}  // namespace

// Buffers of one run. Channels lie in groups of `width`: (groups, N, width).
struct DenseCrf::State {
  State(int64_t pixels, int64_t vertices, int64_t classes, int threads)
      : width(classes <= 4 ? 4 : 8),
        groups((classes + width - 1) / width),
        group_stride(pixels * width),
        threads(threads),
        negative_unary(groups * group_stride, loops::kPadding),
        marginals(groups * group_stride),
        rows(groups * group_stride) {
    for (int64_t g = 0; g < groups; ++g) values.emplace_back((vertices + 1) * width);
    scratch.resize((vertices + 1) * width);
    sliced.resize(groups);
  }

  int width;
  int64_t groups, group_stride;
  int threads;
  std::vector<float> negative_unary;
  std::vector<float> marginals;            // Q
  std::vector<float> rows;                 // Q filtered along the rows
  std::vector<std::vector<float>> values;  // per group (M + 1, width)
  std::vector<float> scratch;
  std::vector<const float*> sliced;  // per group: blurred values, to be sliced
};

DenseCrf::DenseCrf(const uint8_t* image, int64_t height, int64_t width,
                   const DenseCrfKernels& kernels, int threads)
    : height_(height),
      width_(width),
      lattice_(image, height, width, kernels.bilateral_sxy, kernels.bilateral_srgb, threads),
      row_taps_(gaussian_taps(kernels.gaussian_sxy, width)),
      column_taps_(gaussian_taps(kernels.gaussian_sxy, height)),
      gaussian_norm_(height * width),
      gaussian_compat_(static_cast<float>(kernels.gaussian_compat)) {
  normalise(lattice_, kernels.bilateral_compat, threads);
  const std::vector<double> across = tap_sums(row_taps_, width);
  const std::vector<double> down = tap_sums(column_taps_, height);
  for (int64_t i = 0; i < height * width; ++i) {
    const double sum = down[i / width] * across[i % width];
    gaussian_norm_[i] = static_cast<float>(1 / std::sqrt(sum + kNormEpsilon));
  }
}

// rows = sum over a row of k_ij n_j Q_j.
void DenseCrf::filter_gaussian_rows(State& s) const {
  const auto count = static_cast<int64_t>(row_taps_.size());
  const int64_t margin = count / 2 * s.width;
#pragma omp parallel num_threads(s.threads)
  {
    std::vector<float> padded(width_ * s.width + 2 * margin, 0.0f);
#pragma omp for collapse(2) schedule(static)
    for (int64_t g = 0; g < s.groups; ++g) {
      for (int64_t y = 0; y < height_; ++y) {
        const int64_t at = g * s.group_stride + y * width_ * s.width;
        for (int64_t x = 0; x < width_; ++x) {
          const float norm = gaussian_norm_[y * width_ + x];
          for (int c = 0; c < s.width; ++c) {
            padded[margin + x * s.width + c] = norm * s.marginals[at + x * s.width + c];
          }
        }
        loops::correlate(padded.data(), s.width, row_taps_.data(), count, s.rows.data() + at,
                         width_ * s.width);
      }
    }
  }
}

void DenseCrf::filter_lattice(State& s) const {
  for (int64_t g = 0; g < s.groups; ++g) {
    s.sliced[g] = splat_and_blur(lattice_, s.width, s.marginals.data() + g * s.group_stride,
                                 s.values[g], s.scratch, s.threads);
    // The result may have ended in the scratch buffer, which then changes hands.
    if (s.sliced[g] == s.scratch.data()) std::swap(s.scratch, s.values[g]);
  }
}

// Q = softmax(-U + messages), row by row.
void DenseCrf::update(State& s, bool with_messages) const {
  const int64_t row_floats = width_ * s.width;
  const auto radius = static_cast<int64_t>(column_taps_.size() / 2);
#pragma omp parallel num_threads(s.threads)
  {
    std::vector<float> spatial(row_floats);
#pragma omp for schedule(static)
    for (int64_t y = 0; y < height_; ++y) {
      for (int64_t g = 0; g < s.groups; ++g) {
        const int64_t at = g * s.group_stride + y * row_floats;
        float* q = s.marginals.data() + at;
        std::copy_n(s.negative_unary.data() + at, row_floats, q);
        if (!with_messages) continue;
        const int64_t above = std::min(radius, y), below = std::min(radius, height_ - 1 - y);
        loops::correlate(s.rows.data() + at - above * row_floats, row_floats,
                         column_taps_.data() + radius - above, above + 1 + below, spatial.data(),
                         row_floats);
        for (int64_t x = 0; x < width_; ++x) {
          const float scale = gaussian_compat_ * gaussian_norm_[y * width_ + x];
          for (int c = 0; c < s.width; ++c) q[x * s.width + c] += scale * spatial[x * s.width + c];
        }
        loops::slice(s.width, lattice_.corner.data(), lattice_.weight.data(), s.sliced[g], q,
                     y * width_, (y + 1) * width_);
      }
      loops::softmax(s.width, s.marginals.data() + y * row_floats, s.groups, s.group_stride,
                     width_);
    }
  }
}

void DenseCrf::run(const float* unary, float* marginals, int64_t classes, int64_t iterations,
                   int threads) const {
  const int64_t pixels = height_ * width_;
  State s(pixels, lattice_.vertices, classes, threads);
  for (int64_t c = 0; c < classes; ++c) {
    float* group = s.negative_unary.data() + c / s.width * s.group_stride + c % s.width;
    for (int64_t n = 0; n < pixels; ++n) group[n * s.width] = -unary[c * pixels + n];
  }
  update(s, false);
  for (int64_t i = 0; i < iterations; ++i) {
    filter_gaussian_rows(s);
    filter_lattice(s);
    update(s, true);
  }
  for (int64_t c = 0; c < classes; ++c) {
    const float* group = s.marginals.data() + c / s.width * s.group_stride + c % s.width;
    for (int64_t n = 0; n < pixels; ++n) marginals[c * pixels + n] = group[n * s.width];
  }
}

}  // namespace c2am
