#include <algorithm>
#include <vector>

#include "extract_cam/extract_cam.h"
#include "simd.h"

namespace c2am {
namespace {

constexpr int64_t kRows = 64;  // of the result, in a task

// Where the samples of one axis lie: between `low` and `high`, at `fraction` of the way.
template <typename T>
struct Axis {
  Axis(int64_t size, int64_t out_size) : low(out_size), high(out_size), fraction(out_size) {
    const double scale = static_cast<double>(size) / static_cast<double>(out_size);
    for (int64_t i = 0; i < out_size; ++i) {
      const double centre = (static_cast<double>(i) + 0.5) * scale - 0.5;
      const double at = std::min(std::max(centre, 0.0), static_cast<double>(size - 1));
      low[i] = static_cast<int32_t>(at);
      high[i] = std::min<int32_t>(low[i] + 1, static_cast<int32_t>(size - 1));
      fraction[i] = static_cast<T>(at - low[i]);
    }
  }
  std::vector<int32_t> low, high;
  std::vector<T> fraction;
};

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

#define C2AM_RESIZE(T)                                                                             \
  C2AM_DISPATCH(stretch,                                                                           \
                (const T* row, const int32_t* low, const int32_t* high, const T* fraction, T* out, \
                 int64_t n),                                                                       \
                (row, low, high, fraction, out, n))                                                \
  C2AM_DISPATCH(blend, (const T* above, const T* below, T fraction, T* out, int64_t n, bool add),  \
                (above, below, fraction, out, n, add))
C2AM_RESIZE(float)
C2AM_RESIZE(double)
#undef C2AM_RESIZE

// The two rows of a map, stretched to the width of the result, that the last sample lay between.
template <typename T>
class StretchedRows {
 public:
  StretchedRows(const T* map, int64_t width, const Axis<T>& axis)
      : map_(map), width_(width), axis_(axis) {
    for (std::vector<T>& row : rows_) row.resize(axis.low.size());
  }
  const T* operator[](int32_t y) {
    const int slot = y % 2;
    if (held_[slot] != y) {
      stretch(map_ + y * width_, axis_.low.data(), axis_.high.data(), axis_.fraction.data(),
              rows_[slot].data(), static_cast<int64_t>(rows_[slot].size()));
      held_[slot] = y;
    }
    return rows_[slot].data();
  }

 private:
  const T* map_;
  int64_t width_;
  const Axis<T>& axis_;
  std::vector<T> rows_[2];
  int32_t held_[2] = {-1, -1};
};

}  // namespace

template <typename T>
void resize_maps_cpu(const T* maps, T* out, int64_t count, int64_t height, int64_t width,
                     int64_t out_height, int64_t out_width, bool add, int threads) {
  const Axis<T> y_axis(height, out_height), x_axis(width, out_width);
  const int64_t bands = (out_height + kRows - 1) / kRows;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t task = 0; task < count * bands; ++task) {
    const int64_t k = task / bands, first = task % bands * kRows;
    StretchedRows<T> rows(maps + k * height * width, width, x_axis);
    for (int64_t y = first; y < std::min(first + kRows, out_height); ++y) {
      blend(rows[y_axis.low[y]], rows[y_axis.high[y]], y_axis.fraction[y],
            out + (k * out_height + y) * out_width, out_width, add);
    }
  }
}

template void resize_maps_cpu(const float*, float*, int64_t, int64_t, int64_t, int64_t, int64_t,
                              bool, int);
template void resize_maps_cpu(const double*, double*, int64_t, int64_t, int64_t, int64_t, int64_t,
                              bool, int);

}  // namespace c2am
