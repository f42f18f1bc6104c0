#include <algorithm>
#include <cmath>

#include "dense_crf/correlate.h"
#include "dense_crf/dense_crf.h"
#include "dense_crf/features.h"
#include "dense_crf/planes.h"
#include "dense_crf/softmax.h"
#include "dense_crf/spatial.h"
#include "shared_loop.h"

namespace c2am {
namespace {

// Weights of a Gaussian at -r .. r.
std::vector<float> gaussian_taps(double sigma, int64_t extent) {
  const int64_t radius = spatial_radius(sigma, extent);
  std::vector<float> taps;
  for (int64_t t = -radius; t <= radius; ++t) taps.push_back(spatial_weight(sigma, t));
  return taps;
}

}  // namespace

// The spatial kernel is a product of one kernel per axis, and so is its normalisation.
SpatialAxis::SpatialAxis(double sigma, int64_t extent)
    : taps(gaussian_taps(sigma, extent)), radius(static_cast<int64_t>(taps.size() / 2)) {
  for (int64_t i = 0; i < extent; ++i) {
    norm.push_back(spatial_norm(taps.data() + radius, radius, extent, i));
  }
}

// Where the last iteration writes: one of them is null.
struct DenseCrf::Result {
  float* marginals;
  uint8_t* labels;
};

// Scratch of one thread. The zeros beside the rows that are filtered along columns stay.
struct DenseCrf::Rows {
  Rows(const State& s, int64_t width, int64_t radius);

  Buffer<float> values;   // (kCorrelated, groups, W, width)
  Buffer<float> columns;  // (kCorrelated, W + 2 radius, width)
};

// Buffers of one run. Channels are one less than classes: (groups, N, width).
struct DenseCrf::State : Grouping {
  State(const Bilateral& bilateral, const SpatialAxis& axis, int64_t pixels, int64_t classes,
        bool half, int threads)
      : Grouping(classes - 1),
        stride(pixels * width),
        threads(threads),
        relative_unary(groups * stride),
        scaled(groups * stride),
        next_scaled(groups * stride),
        scale(pixels),
        row_norm(axis.norm.size() * width) {
    const auto columns = static_cast<int64_t>(axis.norm.size());
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < pixels; n += columns) {
      for (int64_t x = 0; x < columns; ++x) scale[n + x] = bilateral.norm()[n + x] / axis.norm[x];
    }
    for (int64_t i = 0; i < row_norm.size(); ++i) row_norm[i] = axis.norm[i / width];
    for (int64_t g = 0; g < groups; ++g) passes.push_back(bilateral.pass(width, half));
  }

  int64_t stride;
  int threads;
  Buffer<float> relative_unary;       // U_last - U
  Buffer<float> scaled, next_scaled;  // n_j (Q - Q_last), n of the spatial kernel along a row
  Buffer<float> scale;                // (N,) n of the bilateral kernel over that one
  Buffer<float> row_norm;             // (W, width) n along a row, for all channels
  std::vector<std::unique_ptr<Bilateral::Pass>> passes;  // per group
  std::vector<Rows> rows;                                // per thread
};

DenseCrf::Rows::Rows(const State& s, int64_t width, int64_t radius)
    : values(loops::kCorrelated * s.groups * width * s.width),
      columns(loops::kCorrelated * (width + 2 * radius) * s.width, 0.0f) {}

DenseCrf::DenseCrf(const uint8_t* image, int64_t height, int64_t width,
                   const DenseCrfKernels& kernels, bool exact, int threads)
    : height_(height),
      width_(width),
      across_(kernels.gaussian_sxy, width),
      down_(kernels.gaussian_sxy, height),
      gaussian_compat_(static_cast<float>(kernels.gaussian_compat)) {
  const Features features =
      image_features(image, height, width, kernels.bilateral_sxy, kernels.bilateral_srgb);
  bilateral_ = exact ? exact_bilateral(features, kernels.bilateral_compat, threads)
                     : lattice_bilateral(features, kernels.bilateral_compat, threads);
}

// Sums n_i k_ij n_j Q_j along the columns, for the pixels of `count` rows from y on. `scaled` has
// the n_j along the rows, too.
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
  loops::correlate(count, s.scaled.data() + group * s.stride + first * row_floats, row_floats,
                   taps.data(), last - first + 1, to, row_floats + 2 * across_.radius * s.width,
                   row_floats);
}

// Sums n_i k_ij along a row, which has zeros beside it: this makes the messages of the spatial
// kernel.
void DenseCrf::filter_row(const State& s, const float* from, float* to) const {
  const int64_t row_floats = width_ * s.width;
  loops::correlate_row(s.width, from, across_.taps.data(),
                       static_cast<int64_t>(across_.taps.size()), to, row_floats);
  loops::multiply(s.row_norm.data(), to, to, row_floats);
}

// Sets the messages of both kernels for `count` rows.
void DenseCrf::add_messages(const State& s, int64_t y, int count, Rows& rows) const {
  const int64_t row_floats = width_ * s.width, margin = across_.radius * s.width;
  for (int64_t g = 0; g < s.groups; ++g) {
    filter_columns(s, g, y, count, rows.columns.data() + margin);
    for (int row = 0; row < count; ++row) {
      float* to = rows.values.data() + (row * s.groups + g) * row_floats;
      filter_row(s, rows.columns.data() + row * (row_floats + 2 * margin), to);
      s.passes[g]->add((y + row) * width_, (y + row + 1) * width_, to);
    }
  }
}

// Q = softmax(-U + messages) for `count` rows, which goes where `last` says if it is not null.
void DenseCrf::update_rows(State& s, int64_t y, int count, bool first_time, const Result* last,
                           Rows& rows) const {
  const int64_t row_floats = width_ * s.width;
  float* values = rows.values.data();
  if (first_time) {
    std::fill_n(values, count * s.groups * row_floats, 0.0f);
  } else {
    add_messages(s, y, count, rows);
  }
  for (const int64_t end = y + count; y < end; ++y, values += s.groups * row_floats) {
    const float* unary = s.relative_unary.data() + y * row_floats;
    const loops::Pixels row{s.width, s.groups, width_, height_ * width_, unary, values};
    if (last == nullptr) {
      loops::softmax_differences(row, across_.norm.data(), s.next_scaled.data() + y * row_floats);
    } else if (last->labels != nullptr) {
      loops::arg_max(row, s.channels, last->labels + y * width_);
    } else {
      float* to = last->marginals + y * width_;
      loops::softmax(row, to + s.channels * height_ * width_);
      planes_of_rows(s, height_ * width_, width_, values, to);
    }
  }
}

void DenseCrf::update(State& s, bool first_time, const Result* last) const {
  constexpr int64_t kRows = loops::kCorrelated;
  const int64_t whole = height_ / kRows, tasks = whole + height_ % kRows;
  shared_loop(tasks, s.threads, [&](int64_t task, int thread) {
    const bool several = task < whole;
    update_rows(s, several ? task * kRows : height_ - (tasks - task), several ? kRows : 1,
                first_time, last, s.rows[thread]);
  });
  std::swap(s.scaled, s.next_scaled);
}

void DenseCrf::run(const float* unary, float* marginals, uint8_t* labels, int64_t classes,
                   int64_t iterations, bool half, int threads) const {
  const int64_t pixels = height_ * width_;
  if (classes == 1) {
    if (marginals != nullptr) std::fill_n(marginals, pixels, 1.0f);
    if (labels != nullptr) std::fill_n(labels, pixels, uint8_t{0});
    return;
  }
  const Result result{marginals, labels};
  State s(*bilateral_, across_, pixels, classes, half, threads);
  for (int t = 0; t < threads; ++t) s.rows.emplace_back(s, width_, across_.radius);
  relative_rows(s, pixels, unary, s.relative_unary.data(), threads);
  for (int64_t i = 0; i <= iterations; ++i) {
    for (int64_t g = 0; i > 0 && g < s.groups; ++g) {
      s.passes[g]->filter(s.scaled.data() + g * s.stride, s.scale.data(), threads);
    }
    update(s, i == 0, i == iterations ? &result : nullptr);
  }
}

}  // namespace c2am
