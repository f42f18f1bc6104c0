// Rows of maps that are resized bilinearly (align_corners=False).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace c2am {

constexpr int64_t kRowsOfTask = 64;  // of the result

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

// out[i] = row[low[i]] (1 - fraction[i]) + row[high[i]] fraction[i]
void stretch(const float* row, const int32_t* low, const int32_t* high, const float* fraction,
             float* out, int64_t n);
void stretch(const double* row, const int32_t* low, const int32_t* high, const double* fraction,
             double* out, int64_t n);

// out = above (1 - fraction) + below fraction, or, with `add`, added to it.
void blend(const float* above, const float* below, float fraction, float* out, int64_t n, bool add);
void blend(const double* above, const double* below, double fraction, double* out, int64_t n,
           bool add);

// The largest of n values and of `result`, which is at least 0.
void raise(const float* values, int64_t n, float* result);
void raise(const double* values, int64_t n, double* result);

// A map resized row by row, from the top on: keeps the two rows, stretched to the width of the
// result, that the last one lay between. `columns` of the result are computed.
template <typename T>
class ResizedRows {
 public:
  ResizedRows(const T* map, int64_t width, const Axis<T>& y_axis, const Axis<T>& x_axis,
              int64_t columns)
      : map_(map), width_(width), y_axis_(y_axis), x_axis_(x_axis) {
    for (std::vector<T>& row : rows_) row.resize(columns);
  }

  // Row y of the result, written to `out` or added to it.
  void row(int64_t y, T* out, bool add) {
    const T *above = stretched(y_axis_.low[y]), *below = stretched(y_axis_.high[y]);
    blend(above, below, y_axis_.fraction[y], out, static_cast<int64_t>(rows_[0].size()), add);
  }

 private:
  const T* stretched(int32_t y) {
    const int slot = y % 2;
    if (held_[slot] != y) {
      stretch(map_ + y * width_, x_axis_.low.data(), x_axis_.high.data(), x_axis_.fraction.data(),
              rows_[slot].data(), static_cast<int64_t>(rows_[slot].size()));
      held_[slot] = y;
    }
    return rows_[slot].data();
  }

  const T* map_;
  int64_t width_;
  const Axis<T>& y_axis_;
  const Axis<T>& x_axis_;
  std::vector<T> rows_[2];
  int32_t held_[2] = {-1, -1};
};

}  // namespace c2am
