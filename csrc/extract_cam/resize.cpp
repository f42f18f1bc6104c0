#include "extract_cam/resize.h"

#include "extract_cam/extract_cam.h"
#include "simd.h"

namespace c2am {
namespace {

template <typename T>
C2AM_INLINE void stretch_body(const T* row, const int32_t* low, const int32_t* high,
                              const T* fraction, T* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    out[i] = row[low[i]] * (1 - fraction[i]) + row[high[i]] * fraction[i];
  }
}

template <typename T>
C2AM_INLINE void blend_body(const T* above, const T* below, T fraction, T* out, int64_t n,
                            bool add) {
  const T rest = 1 - fraction;
  if (add) {
    for (int64_t i = 0; i < n; ++i) out[i] += above[i] * rest + below[i] * fraction;
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = above[i] * rest + below[i] * fraction;
  }
}

template <typename T>
C2AM_INLINE void raise_body(const T* values, int64_t n, T* result) {
  constexpr int width = 4 * 32 / sizeof(T);  // maxima that need not wait for each other
  T largest[width] = {};
  int64_t i = 0;
  for (; i + width <= n; i += width) {
    for (int lane = 0; lane < width; ++lane) {
      largest[lane] = values[i + lane] > largest[lane] ? values[i + lane] : largest[lane];
    }
  }
  for (; i < n; ++i) largest[0] = std::max(largest[0], values[i]);
  *result = std::max(*result, *std::max_element(largest, largest + width));
}

}  // namespace

#define C2AM_RESIZE(T)                                                                             \
  C2AM_DISPATCH(stretch,                                                                           \
                (const T* row, const int32_t* low, const int32_t* high, const T* fraction, T* out, \
                 int64_t n),                                                                       \
                (row, low, high, fraction, out, n))                                                \
  C2AM_DISPATCH(blend, (const T* above, const T* below, T fraction, T* out, int64_t n, bool add),  \
                (above, below, fraction, out, n, add))                                             \
  C2AM_DISPATCH(raise, (const T* values, int64_t n, T* result), (values, n, result))
C2AM_RESIZE(float)
C2AM_RESIZE(double)
#undef C2AM_RESIZE

template <typename T>
void resize_maps_cpu(const T* maps, T* out, int64_t count, int64_t height, int64_t width,
                     int64_t out_height, int64_t out_width, bool add, int threads) {
  const Axis<T> y_axis(height, out_height), x_axis(width, out_width);
  const int64_t bands = (out_height + kRowsOfTask - 1) / kRowsOfTask;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t task = 0; task < count * bands; ++task) {
    const int64_t k = task / bands, first = task % bands * kRowsOfTask;
    ResizedRows<T> rows(maps + k * height * width, width, y_axis, x_axis, out_width);
    for (int64_t y = first; y < std::min(first + kRowsOfTask, out_height); ++y) {
      rows.row(y, out + (k * out_height + y) * out_width, add);
    }
  }
}

template void resize_maps_cpu(const float*, float*, int64_t, int64_t, int64_t, int64_t, int64_t,
                              bool, int);
template void resize_maps_cpu(const double*, double*, int64_t, int64_t, int64_t, int64_t, int64_t,
                              bool, int);

}  // namespace c2am
