// The spatial kernel along one axis, for CPU and GPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "host_device.h"

namespace c2am {

// How far a Gaussian reaches: as far as float32 tells its weights from 0 beside the 1 in the
// middle, and no further than a side of `extent` pixels.
inline int64_t spatial_radius(double sigma, int64_t extent) {
  const double reach = sigma * std::sqrt(-2 * std::log(std::numeric_limits<float>::epsilon()));
  return static_cast<int64_t>(std::fmin(static_cast<double>(extent - 1), reach));
}

C2AM_HD float spatial_weight(double sigma, int64_t distance) {
  return static_cast<float>(exp(-0.5 * (distance / sigma) * (distance / sigma)));
}

// n_i at place i. taps: (radius + 1,) the weights at distances from 0 on.
C2AM_HD float spatial_norm(const float* taps, int64_t radius, int64_t extent, int64_t i) {
  double sum = 1e-20;
  const int64_t first = i > radius ? i - radius : 0;
  const int64_t last = i + radius < extent ? i + radius : extent - 1;
  for (int64_t other = first; other <= last; ++other)
    sum += taps[other < i ? i - other : other - i];
  return static_cast<float>(1 / sqrt(sum));
}

}  // namespace c2am
