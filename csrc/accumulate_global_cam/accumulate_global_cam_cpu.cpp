#include <algorithm>
#include <vector>

#include "accumulate_global_cam/accumulate_global_cam.h"
#include "simd.h"

namespace c2am {
namespace {

constexpr int64_t kTile = 4096;  // pixels of a task

struct State {
  bool valid, seen;  // all values in 0..1; one of them not 0
};

template <typename E>
C2AM_INLINE void inspect_body(const E* values, int64_t n, State* state) {
  int outside = 0, seen = 0;
  for (int64_t i = 0; i < n; ++i) {
    outside |= !(values[i] >= 0) | !(values[i] <= 1);  // true of NaN too
    seen |= values[i] != 0;
  }
  *state = {outside == 0, seen != 0};
}

// Adding and taking away 1.5 * 2^22 rounds a double in 0..1 to a multiple of 2^-30, ties to even.
C2AM_INLINE double rounded(double value) { return (value + 0x1.8p22) - 0x1.8p22; }
C2AM_INLINE float rounded(float value) { return value; }

// Eq. 2, of one map.
template <typename E, typename T>
C2AM_INLINE void add_map_body(const E* values, T* total, int64_t n) {
  for (int64_t i = 0; i < n; ++i) total[i] += rounded(static_cast<T>(values[i]));
}

C2AM_DISPATCH(inspect, (const float* values, int64_t n, State* state), (values, n, state))
C2AM_DISPATCH(inspect, (const double* values, int64_t n, State* state), (values, n, state))
C2AM_DISPATCH(add_map, (const float* values, float* total, int64_t n), (values, total, n))
C2AM_DISPATCH(add_map, (const float* values, double* total, int64_t n), (values, total, n))
C2AM_DISPATCH(add_map, (const double* values, float* total, int64_t n), (values, total, n))
C2AM_DISPATCH(add_map, (const double* values, double* total, int64_t n), (values, total, n))

}  // namespace

template <typename E, typename T>
bool accumulate_global_cam_cpu(const E* cam, const int64_t* class_index, T* total, int64_t* count,
                               int64_t maps, int64_t pixels, int threads) {
  const int64_t tiles = (pixels + kTile - 1) / kTile;
  const int team = static_cast<int>(std::min<int64_t>(threads, maps * tiles));
  std::vector<State> states(maps);
#pragma omp parallel for num_threads(team) schedule(static)
  for (int64_t k = 0; k < maps; ++k) inspect(cam + k * pixels, pixels, &states[k]);
  for (const State& state : states) {
    if (!state.valid) return false;
  }
#pragma omp parallel for num_threads(team) schedule(static)
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = tile * kTile, n = std::min(kTile, pixels - first);
    for (int64_t k = 0; k < maps; ++k) {
      if (!states[k].seen) continue;
      add_map(cam + k * pixels + first, total + class_index[k] * pixels + first, n);
    }
  }
  for (int64_t k = 0; k < maps; ++k) count[class_index[k]] += states[k].seen;
  return true;
}

template bool accumulate_global_cam_cpu(const float*, const int64_t*, float*, int64_t*, int64_t,
                                        int64_t, int);
template bool accumulate_global_cam_cpu(const float*, const int64_t*, double*, int64_t*, int64_t,
                                        int64_t, int);
template bool accumulate_global_cam_cpu(const double*, const int64_t*, float*, int64_t*, int64_t,
                                        int64_t, int);
template bool accumulate_global_cam_cpu(const double*, const int64_t*, double*, int64_t*, int64_t,
                                        int64_t, int);

}  // namespace c2am
