#include "dense_crf/mean_field.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "dense_crf/mix.h"
#include "dense_crf/planes.h"
#include "dense_crf/softmax.h"

namespace c2am {
namespace {

constexpr int64_t kTile = 512;  // points whose rows stay in cache from the filters to the softmax

// What turns filtered rows of channels into messages: one factor for all, or a matrix.
struct Mixing {
  Mixing(const Grouping& grouping, const std::vector<double>& of_channels);

  bool scales = true;
  float factor = 0;
  std::vector<float> matrix;  // (groups * width, groups * width), 0 in padding
};

// of_channels: (channels, channels)
Mixing::Mixing(const Grouping& grouping, const std::vector<double>& of_channels)
    : factor(static_cast<float>(of_channels[0])) {
  const int64_t channels = grouping.channels, size = grouping.groups * grouping.width;
  matrix.resize(size * size);
  for (int64_t b = 0; b < channels; ++b) {
    for (int64_t c = 0; c < channels; ++c) {
      const double value = of_channels[b * channels + c];
      matrix[b * size + c] = static_cast<float>(value);
      scales = scales && value == (b == c ? of_channels[0] : 0);
    }
  }
}

// The compatibilities of differences. With f_b the filtered marginals, d_b = f_b - f_last, and
// F = sum over b of f_b, the messages differ by
//   m_c - m_last = -sum_b (M_bc - M_b,last) f_b = -sum_b (D_bc - s_c / C) d_b - s_c F / C,
// where D_bc = M_bc - M_b,last and s_c = sum_b D_bc. With Potts' model, s is 0 and D a multiple of
// the identity.
struct Relative {
  Relative(const std::vector<double>& compat, int64_t classes);
  bool has_common() const {
    return std::any_of(common.begin(), common.end(), [](double factor) { return factor != 0; });
  }

  std::vector<double> of_differences;  // (C - 1, C - 1) the factors of d
  std::vector<double> common;          // (C - 1,) the factors of F
};

Relative::Relative(const std::vector<double>& compat, int64_t classes)
    : of_differences((classes - 1) * (classes - 1)), common(classes - 1) {
  const int64_t last = classes - 1;
  const auto column = [&](int64_t b, int64_t c) {
    return compat[b * classes + c] - compat[b * classes + last];
  };
  for (int64_t c = 0; c < last; ++c) {
    double sum = 0;
    for (int64_t b = 0; b < classes; ++b) sum += column(b, c);
    common[c] = -sum / static_cast<double>(classes);
    for (int64_t b = 0; b < last; ++b) of_differences[b * last + c] = -column(b, c) - common[c];
  }
}

// a_i sum_j k_ij b_j values_j of one channel. values, before, after: (N,)
Buffer<float> filtered(const Kernel& kernel, const Buffer<float>& before,
                       const Buffer<float>& after, const Buffer<float>& values, int threads) {
  const std::unique_ptr<Kernel::Pass> pass = kernel.pass(1);
  pass->filter(values.data(), before.data(), threads);
  Buffer<float> out(values.size(), 0.0f);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t first = 0; first < out.size(); first += kTile) {
    const int64_t last = std::min(first + kTile, out.size());
    pass->add(first, last, after.data() + first, out.data() + first);
  }
  return out;
}

// The sums of marginals: (classes, N) of each point.
Buffer<float> totals(const float* marginals, int64_t classes, int64_t points) {
  Buffer<float> sums(points, 0.0f);
  for (int64_t c = 0; c < classes; ++c) {
    for (int64_t n = 0; n < points; ++n) sums[n] += marginals[c * points + n];
  }
  return sums;
}

}  // namespace

// Buffers of one run. Channels, of all labels or one less, lie in groups: (groups, N, width).
struct MeanField::State {
  State(int64_t points, int64_t channels, int threads)
      : points(points),
        grouping(channels),
        threads(threads),
        rows(grouping.groups * points * grouping.width) {}
  void add(const Potential& potential, const std::vector<double>& of_channels);
  void add_to_unary(const std::vector<double>& factors, const Buffer<float>& values);

  int64_t points;
  Grouping grouping;
  int threads;
  Buffer<float> rows;                                              // Q, or Q - Q_last
  Buffer<float> relative_unary;                                    // U_last - U
  std::vector<std::vector<std::unique_ptr<Kernel::Pass>>> passes;  // per potential and group
  std::vector<Mixing> mixing;                                      // per potential
  std::vector<Buffer<float>> scale;  // (N,) per potential: a, times the factor if there is one
};

void MeanField::State::add(const Potential& potential, const std::vector<double>& of_channels) {
  passes.emplace_back();
  for (int64_t g = 0; g < grouping.groups; ++g) {
    passes.back().push_back(potential.kernel->pass(grouping.width));
  }
  mixing.emplace_back(grouping, of_channels);
  const float factor = mixing.back().scales ? mixing.back().factor : 1;
  Buffer<float> scaled(points);
  for (int64_t n = 0; n < points; ++n) scaled[n] = factor * potential.after[n];
  scale.push_back(std::move(scaled));
}

// relative_unary += factors * values, per channel and point. factors: (channels,); values: (N,)
void MeanField::State::add_to_unary(const std::vector<double>& factors,
                                    const Buffer<float>& values) {
  const int width = grouping.width;
  std::vector<float> padded(factors.begin(), factors.end());
  padded.resize(grouping.groups * width, 0.0f);
  for (int64_t g = 0; g < grouping.groups; ++g) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < points; ++n) {
      float* row = relative_unary.data() + (g * points + n) * width;
      for (int c = 0; c < width; ++c) row[c] += padded[g * width + c] * values[n];
    }
  }
}

void MeanField::add(std::unique_ptr<const Kernel> kernel, Normalization normalization,
                    const float* compat, int threads) {
  constexpr float kNormEpsilon = 1e-20f;
  Buffer<float> before(points_, 1.0f), after(points_, 1.0f);
  if (normalization != Normalization::none) {
    const Buffer<float> sums = filtered(*kernel, before, after, before, threads);
    const bool symmetric = normalization == Normalization::symmetric;
    for (int64_t n = 0; n < points_; ++n) {
      const float sum = sums[n] + kNormEpsilon, norm = 1 / (symmetric ? std::sqrt(sum) : sum);
      if (normalization != Normalization::after) before[n] = norm;
      if (normalization != Normalization::before) after[n] = norm;
    }
  }
  potentials_.push_back({std::move(kernel), std::move(before), std::move(after),
                         std::vector<double>(compat, compat + classes_ * classes_)});
}

// The state in which differences of marginals are filtered.
MeanField::State MeanField::relative_state(const float* unary, int threads) const {
  State s(points_, classes_ - 1, threads);
  s.relative_unary = Buffer<float>(s.rows.size());
  relative_rows(s.grouping, points_, unary, s.relative_unary.data(), threads);
  for (const Potential& potential : potentials_) {
    s.add(potential, Relative(potential.compat, classes_).of_differences);
  }
  return s;
}

// Adds the part of the messages that is the same in all updates, as the sums of the marginals are,
// to the unary energies. started: (C, N) marginals, or null for sums of 1.
void MeanField::add_common(const float* started, State& s) const {
  for (const auto& [kernel, before, after, compat] : potentials_) {
    const Relative relative(compat, classes_);
    if (!relative.has_common()) continue;
    const Buffer<float> sums =
        started == nullptr ? Buffer<float>(points_, 1.0f) : totals(started, classes_, points_);
    s.add_to_unary(relative.common, filtered(*kernel, before, after, sums, s.threads));
  }
}

void MeanField::filter(State& s) const {
  for (size_t p = 0; p < potentials_.size(); ++p) {
    for (int64_t g = 0; g < s.grouping.groups; ++g) {
      s.passes[p][g]->filter(s.rows.data() + g * points_ * s.grouping.width,
                             potentials_[p].before.data(), s.threads);
    }
  }
}

// Sets the messages of `count` points, to: (groups, count, width), with as much scratch.
void MeanField::set_messages(const State& s, int64_t first, int64_t count, float* scratch,
                             float* to) const {
  const auto [channels, groups, width] = s.grouping;
  std::fill_n(to, groups * count * width, 0.0f);
  for (size_t p = 0; p < potentials_.size(); ++p) {
    const Mixing& mixing = s.mixing[p];
    if (!mixing.scales) std::fill_n(scratch, groups * count * width, 0.0f);
    for (int64_t g = 0; g < groups; ++g) {
      s.passes[p][g]->add(first, first + count, s.scale[p].data() + first,
                          (mixing.scales ? to : scratch) + g * count * width);
    }
    if (!mixing.scales) loops::mix(width, groups, count, scratch, mixing.matrix.data(), to);
  }
}

// Calls body(first, count, messages) for tiles of points; without messages they are 0.
template <typename Body>
void MeanField::for_messages(const State& s, bool without, const Body& body) const {
  const int64_t size = s.grouping.groups * kTile * s.grouping.width;
  std::vector<Buffer<float>> all;  // made here: nothing may be thrown in a parallel region
  for (int t = 0; t < 2 * s.threads; ++t) all.emplace_back(size);
#pragma omp parallel num_threads(s.threads)
  {
    Buffer<float>&rows = all[2 * omp_get_thread_num()],
    &scratch = all[2 * omp_get_thread_num() + 1];
#pragma omp for schedule(static)
    for (int64_t first = 0; first < points_; first += kTile) {
      const int64_t count = std::min(kTile, points_ - first);
      if (without) {
        std::fill(rows.begin(), rows.end(), 0.0f);
      } else {
        set_messages(s, first, count, scratch.data(), rows.data());
      }
      body(first, count, rows.data());
    }
  }
}

void MeanField::update(const float* unary, float* marginals, int64_t steps, bool started,
                       int threads) const {
  if (classes_ == 1) {
    std::fill_n(marginals, points_, 1.0f);
    return;
  }
  State s = relative_state(unary, threads);
  if (started) difference_rows(s.grouping, points_, marginals, s.rows.data(), threads);
  const std::vector<float> ones(kTile, 1.0f);
  for (int64_t i = started ? 1 : 0; i <= steps; ++i) {
    if (i == 1) add_common(started ? marginals : nullptr, s);
    if (i > 0) filter(s);
    for_messages(s, i == 0, [&](int64_t first, int64_t count, float* rows) {
      const int64_t offset = first * s.grouping.width;
      const loops::Pixels tile{s.grouping.width,
                               s.grouping.groups,
                               count,
                               points_,
                               s.relative_unary.data() + offset,
                               rows};
      if (i < steps) {
        loops::softmax_differences(tile, ones.data(), s.rows.data() + offset);
      } else {
        loops::softmax(tile, marginals + (classes_ - 1) * points_ + first);
        planes_of_rows(s.grouping, points_, count, rows, marginals + first);
      }
    });
  }
}

void MeanField::messages(const float* marginals, float* out, int threads) const {
  State s(points_, classes_, threads);
  for (const Potential& potential : potentials_) {
    std::vector<double> factors = potential.compat;
    for (double& factor : factors) factor = -factor;
    s.add(potential, factors);
  }
  rows_of_planes(s.grouping, points_, marginals, s.rows.data(), threads);
  filter(s);
  for_messages(s, false, [&](int64_t first, int64_t count, const float* rows) {
    planes_of_rows(s.grouping, points_, count, rows, out + first);
  });
}

}  // namespace c2am
