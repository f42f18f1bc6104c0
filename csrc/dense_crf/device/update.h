// The spatial kernel and the mean-field update. Of C classes there are C - 1 channels, each
// compared with the last class: see softmax.h. They lie in rows of `width` values, see filter.h.
#pragma once

#include "dense_crf/device/filter.h"
#include "dense_crf/spatial.h"

namespace c2am::device {

// The spatial kernel is a product of one kernel per axis, and so is its normalisation.
struct Spatial {
  int32_t height, width;  // of an image
  int32_t radius_down, radius_across;
  float compat;
  float* taps;           // (larger radius + 1,) k at distances from 0 on
  float *down, *across;  // (height,), (width,) n_i
};

// For each distance: the weight.
struct SpatialTaps {
  double sigma;
  float* taps;

  C2AM_HD void operator()(int64_t i, int) const { taps[i] = spatial_weight(sigma, i); }
};
// For each place along an axis: n_i.
struct SpatialNorm {
  const float* taps;
  int64_t radius, extent;
  float* norm;

  C2AM_HD void operator()(int64_t i, int) const { norm[i] = spatial_norm(taps, radius, extent, i); }
};

// For each point and V channels: U_last - U.
template <int V>
struct LoadUnary {
  const float* unary;  // (images, classes, pixels)
  int32_t pixels, classes;
  int width;
  float* relative;  // (N, width)

  C2AM_HD void operator()(int64_t n, int lane) const {
    constexpr float kPadding = -1e30f;  // of a channel without a class: its Q is 0
    const int32_t image = static_cast<int32_t>(n) / pixels,
                  pixel = static_cast<int32_t>(n) % pixels;
    const float* of_pixel = unary + int64_t{image} * classes * pixels + pixel;
    const float last = of_pixel[int64_t{classes - 1} * pixels];
    Vec<V> value;
    for (int j = 0; j < V; ++j) {
      const int channel = lane * V + j;
      value.at[j] = channel < classes - 1 ? last - of_pixel[int64_t{channel} * pixels] : kPadding;
    }
    store<V>(relative + n * width + lane * V, value);
  }
};

// For each point and V channels: to = sum over its row of n_i k_ij n_j from_j.
template <int V>
struct FilterRow {
  Spatial spatial;
  const float* from;  // (N, width)
  int width;
  float* to;  // (N, width)

  C2AM_HD void operator()(int64_t n, int lane) const {
    const int32_t x = static_cast<int32_t>(n) % spatial.width, r = spatial.radius_across;
    const int32_t first = x > r ? x - r : 0;
    const int32_t last = x + r < spatial.width ? x + r : spatial.width - 1;
    const float* at = from + (n - x + first) * width + lane * V;
    Vec<V> sum = Vec<V>::of(0);
    for (int32_t other = first; other <= last; ++other, at += width) {
      const int32_t distance = other < x ? x - other : other - x;
      sum.add(spatial.across[other] * spatial.taps[distance], load<V>(at));
    }
    sum.scale(spatial.across[x]);
    store<V>(to + n * width + lane * V, sum);
  }
};

// Where an update writes: one of them is not null.
struct Result {
  float* differences;  // (N, width) Q - Q_last, for the next update
  float* marginals;    // (images, classes, pixels) Q
  uint8_t* labels;     // (N,) the first of the classes with the largest Q
};

// For each point, by a team of which a lane takes K times V channels: Q = softmax(-U + messages).
template <int V, int K, int Lanes, typename T>
struct Update {
  Spatial spatial;
  Lattice lattice;
  const float* relative;  // (N, width) U_last - U
  const float* rows;      // (N, width) from FilterRow; null: without messages
  const T* values;        // (M + 1, width) from the blur
  int width;
  int32_t classes;
  Result result;

  C2AM_HD void operator()(int64_t n, int lane) const {
    Vec<V> logit[K];  // less that of the last class
    for (int k = 0; k < K; ++k) {
      const int channel = channel_of(k, lane);
      if (channel >= width) continue;
      logit[k] = load<V>(relative + n * width + channel);
      if (rows != nullptr) add_messages(n, channel, logit[k]);
    }
    if (result.labels != nullptr) {
      arg_max(n, lane, logit);
    } else {
      softmax(n, lane, logit);
    }
  }

 private:
  C2AM_HD static int channel_of(int k, int lane) { return (k * Lanes + lane) * V; }

  C2AM_HD void add_messages(int64_t n, int channel, Vec<V>& logit) const {
    logit.add(lattice.scale[n], slice<V>(lattice, values, width, n, channel));
    const int32_t y = static_cast<int32_t>(n) / spatial.width % spatial.height;
    const int32_t r = spatial.radius_down;
    const int32_t first = y > r ? y - r : 0;
    const int32_t last = y + r < spatial.height ? y + r : spatial.height - 1;
    const int64_t stride = int64_t{spatial.width} * width;
    const float* at = rows + n * width + channel + (first - y) * stride;
    Vec<V> sum = Vec<V>::of(0);
    for (int32_t other = first; other <= last; ++other, at += stride) {
      const int32_t distance = other < y ? y - other : other - y;
      sum.add(spatial.down[other] * spatial.taps[distance], load<V>(at));
    }
    logit.add(spatial.compat * spatial.down[y], sum);
  }

  C2AM_HD void softmax(int64_t n, int lane, Vec<V>* logit) const {
    float top = 0;  // of the last class
    for (int k = 0; k < K; ++k) {
      if (channel_of(k, lane) >= width) continue;
      for (int j = 0; j < V; ++j) top = fmaxf(top, logit[k].at[j]);
    }
    top = team_max<Lanes>(top);
    float sum = 0;
    for (int k = 0; k < K; ++k) {
      if (channel_of(k, lane) >= width) continue;
      for (int j = 0; j < V; ++j) sum += logit[k].at[j] = expf(logit[k].at[j] - top);
    }
    const float of_last = expf(-top);
    const float share = 1 / (team_sum<Lanes>(sum) + of_last);
    for (int k = 0; k < K; ++k) {
      const int channel = channel_of(k, lane);
      if (channel >= width) continue;
      if (result.differences != nullptr) {
        for (int j = 0; j < V; ++j) logit[k].at[j] = (logit[k].at[j] - of_last) * share;
        store<V>(result.differences + n * width + channel, logit[k]);
      } else {
        for (int j = 0; j < V; ++j) write(n, channel + j, logit[k].at[j] * share);
      }
    }
    if (result.marginals != nullptr && lane == 0) write(n, classes - 1, of_last * share, true);
  }

  C2AM_HD void write(int64_t n, int channel, float q, bool last = false) const {
    if (channel >= classes - 1 && !last) return;
    const int32_t pixels = spatial.height * spatial.width;
    const int64_t plane = int64_t{static_cast<int32_t>(n) / pixels} * classes + channel;
    result.marginals[plane * pixels + static_cast<int32_t>(n) % pixels] = q;
  }

  C2AM_HD void arg_max(int64_t n, int lane, const Vec<V>* logit) const {
    float best = -INFINITY, label = static_cast<float>(classes);
    for (int k = K - 1; k >= 0; --k) {
      const int channel = channel_of(k, lane);
      if (channel >= width) continue;
      for (int j = V - 1; j >= 0; --j) {
        if (channel + j >= classes - 1 || logit[k].at[j] < best) continue;
        best = logit[k].at[j];
        label = static_cast<float>(channel + j);
      }
    }
    const float top = team_max<Lanes>(best);
    const float first = -team_max<Lanes>(best == top ? -label : -INFINITY);
    if (lane == 0) result.labels[n] = static_cast<uint8_t>(top >= 0 ? first : classes - 1);
  }
};

}  // namespace c2am::device
