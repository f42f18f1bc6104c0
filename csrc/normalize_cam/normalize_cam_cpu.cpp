#include <algorithm>
#include <limits>
#include <vector>

#include "elements.h"
#include "normalize_cam/normalize_cam.h"

namespace c2am {
namespace {

constexpr int64_t kTile = 32768;  // pixels of a task

// The largest of n values of 0 or more, at least 0; infinity if one is negative or not finite.
template <typename E, typename T>
C2AM_INLINE void largest_body(const E* values, int64_t n, T* result) {
  constexpr int width = 4 * 32 / sizeof(T);  // maxima that need not wait for each other
  constexpr T infinity = std::numeric_limits<T>::infinity();
  T largest[width] = {};
  int64_t i = 0;
  for (; i + width <= n; i += width) {
    for (int lane = 0; lane < width; ++lane) {
      // Not so for NaN either, which then stands for infinity.
      const T value = widen(values[i + lane]), checked = value >= 0 ? value : infinity;
      largest[lane] = checked > largest[lane] ? checked : largest[lane];
    }
  }
  for (; i < n; ++i) {
    const T value = widen(values[i]), checked = value >= 0 ? value : infinity;
    largest[0] = checked > largest[0] ? checked : largest[0];
  }
  *result = *std::max_element(largest, largest + width);
}

template <typename E, typename T>
C2AM_INLINE void divide_body(const E* values, T divisor, E* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) narrow(widen(values[i]) / divisor, out[i]);
}

#define C2AM_NORMALIZE(E, T)                                                           \
  C2AM_DISPATCH(largest, (const E* values, int64_t n, T* result), (values, n, result)) \
  C2AM_DISPATCH(divide, (const E* values, T divisor, E* out, int64_t n), (values, divisor, out, n))
C2AM_NORMALIZE(float, float)
C2AM_NORMALIZE(double, double)
C2AM_NORMALIZE(Half, float)
C2AM_NORMALIZE(BFloat16, float)
#undef C2AM_NORMALIZE

}  // namespace

template <typename E>
bool normalize_cam_cpu(const E* cam, E* out, int64_t maps, int64_t pixels, double eps,
                       int threads) {
  using T = Wide<E>;
  const int64_t tiles = (pixels + kTile - 1) / kTile;
  const int team = static_cast<int>(std::min<int64_t>(threads, maps * pixels / kTile + 1));
  std::vector<T> maxima(maps * tiles);
#pragma omp parallel for num_threads(team) schedule(static)
  for (int64_t task = 0; task < maps * tiles; ++task) {
    const int64_t map = task / tiles, first = task % tiles * kTile;
    largest(cam + map * pixels + first, std::min(kTile, pixels - first), &maxima[task]);
  }
  const bool valid = std::all_of(maxima.begin(), maxima.end(), [](T largest) {
    return largest <= std::numeric_limits<T>::max();
  });
  if (!valid) return false;
#pragma omp parallel for num_threads(team) schedule(static)
  for (int64_t task = 0; task < maps * tiles; ++task) {
    const int64_t map = task / tiles, first = task % tiles * kTile;
    const T* of_map = maxima.data() + map * tiles;
    const T divisor = *std::max_element(of_map, of_map + tiles) + static_cast<T>(eps);
    const int64_t at = map * pixels + first;
    divide(cam + at, divisor, out + at, std::min(kTile, pixels - first));
  }
  return true;
}

template bool normalize_cam_cpu(const float*, float*, int64_t, int64_t, double, int);
template bool normalize_cam_cpu(const double*, double*, int64_t, int64_t, double, int);
template bool normalize_cam_cpu(const Half*, Half*, int64_t, int64_t, double, int);
template bool normalize_cam_cpu(const BFloat16*, BFloat16*, int64_t, int64_t, double, int);

}  // namespace c2am
