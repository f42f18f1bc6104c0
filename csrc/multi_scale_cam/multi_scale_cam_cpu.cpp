#include <algorithm>

#include "extract_cam/resize.h"
#include "multi_scale_cam/multi_scale_cam.h"
#include "simd.h"

namespace c2am {
namespace {

template <typename T>
C2AM_INLINE void divide_body(T* values, T divisor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) values[i] /= divisor;
}

C2AM_DISPATCH(divide, (float* values, float divisor, int64_t n), (values, divisor, n))
C2AM_DISPATCH(divide, (double* values, double divisor, int64_t n), (values, divisor, n))

template <typename T>
struct Axes {
  Axes(const ScaleMaps<T>& scale, const MergedSize& size)
      : y(scale.height, size.height), x(scale.width, size.width) {}
  Axis<T> y, x;
};

}  // namespace

template <typename T>
void multi_scale_cam_cpu(const std::vector<ScaleMaps<T>>& scales, T* out, int64_t count,
                         const MergedSize& size, double eps, int threads) {
  std::vector<Axes<T>> axes;
  for (const ScaleMaps<T>& scale : scales) axes.emplace_back(scale, size);
  const int64_t rows = size.kept_height, columns = size.kept_width;
  const int64_t bands = (rows + kRowsOfTask - 1) / kRowsOfTask;
  std::vector<T> maxima(count * bands);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t task = 0; task < count * bands; ++task) {
    const int64_t k = task / bands, first = task % bands * kRowsOfTask;
    std::vector<ResizedRows<T>> resized;
    for (size_t s = 0; s < scales.size(); ++s) {
      const T* map = scales[s].maps + k * scales[s].height * scales[s].width;
      resized.emplace_back(map, scales[s].width, axes[s].y, axes[s].x, columns);
    }
    for (int64_t y = first; y < std::min(first + kRowsOfTask, rows); ++y) {
      T* row = out + (k * rows + y) * columns;
      for (size_t s = 0; s < scales.size(); ++s) resized[s].row(y, row, s > 0);
      raise(row, columns, &maxima[task]);
    }
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t task = 0; task < count * bands; ++task) {
    const int64_t k = task / bands, first = task % bands * kRowsOfTask;
    const T* of_map = maxima.data() + k * bands;
    const T divisor = *std::max_element(of_map, of_map + bands) + static_cast<T>(eps);
    divide(out + (k * rows + first) * columns, divisor,
           std::min(kRowsOfTask, rows - first) * columns);
  }
}

template void multi_scale_cam_cpu(const std::vector<ScaleMaps<float>>&, float*, int64_t,
                                  const MergedSize&, double, int);
template void multi_scale_cam_cpu(const std::vector<ScaleMaps<double>>&, double*, int64_t,
                                  const MergedSize&, double, int);

}  // namespace c2am
