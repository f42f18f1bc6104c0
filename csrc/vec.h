// What the functions of a GPU's threads are written in. They compile for the host too, where a test
// calls them one after the other.
#pragma once

#include <cmath>
#include <cstdint>

#include "host_device.h"
#ifdef __CUDACC__
#include <cuda_fp16.h>
#endif

namespace c2am::device {

// V adjacent channels of a pixel or vertex: one access to memory.
template <int V>
struct alignas(V * sizeof(float)) Vec {
  float at[V];

  C2AM_HD static Vec of(float value) {
    Vec result;
    for (int j = 0; j < V; ++j) result.at[j] = value;
    return result;
  }
  C2AM_HD void add(float weight, const Vec& other) {
    for (int j = 0; j < V; ++j) at[j] += weight * other.at[j];
  }
  C2AM_HD void scale(float factor) {
    for (int j = 0; j < V; ++j) at[j] *= factor;
  }
};

template <int V>
C2AM_HD Vec<V> load(const float* from) {
  return *reinterpret_cast<const Vec<V>*>(from);
}
template <int V>
C2AM_HD void store(float* to, const Vec<V>& value) {
  *reinterpret_cast<Vec<V>*>(to) = value;
}

#ifdef __CUDACC__
template <int V>
struct alignas(V * sizeof(__half)) Halves {
  __half at[V];
};
template <int V>
C2AM_HD Vec<V> load(const __half* from) {
  const Halves<V> stored = *reinterpret_cast<const Halves<V>*>(from);
  Vec<V> value;
  for (int j = 0; j < V; ++j) value.at[j] = __half2float(stored.at[j]);
  return value;
}
template <int V>
C2AM_HD void store(__half* to, const Vec<V>& value) {
  Halves<V> stored;
  for (int j = 0; j < V; ++j) stored.at[j] = __float2half_rn(value.at[j]);
  *reinterpret_cast<Halves<V>*>(to) = stored;
}
#endif

// Sums and maxima over a team: `Lanes` adjacent threads, a power of two up to 32, which all call
// them. On the host a team is one thread.
template <int Lanes>
C2AM_HD float of_other_lane(float value, int offset) {
#ifdef __CUDA_ARCH__
  const unsigned first = (threadIdx.y * blockDim.x + threadIdx.x) & 31 & ~(Lanes - 1);
  const unsigned team = Lanes == 32 ? ~0u : ((1u << Lanes % 32) - 1) << first;
  return __shfl_xor_sync(team, value, offset);
#else
  (void)offset;
  return value;
#endif
}
template <int Lanes>
C2AM_HD float team_sum(float value) {
  for (int offset = Lanes / 2; offset > 0; offset /= 2) {
    value += of_other_lane<Lanes>(value, offset);
  }
  return value;
}
template <int Lanes>
C2AM_HD float team_max(float value) {
  for (int offset = Lanes / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, of_other_lane<Lanes>(value, offset));
  }
  return value;
}

}  // namespace c2am::device
