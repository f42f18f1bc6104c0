#include "dense_crf/planes.h"

#include <algorithm>
#include <limits>

#include "dense_crf/row.h"

namespace c2am {
namespace {

// Numbers of a tile of points that is transposed channel by channel: 64 points of 20 channels,
// whole cache lines of each plane, and 5 KiB that stay in the first-level cache.
constexpr int64_t kTransposed = 1280;
constexpr float kPadding = -1e30f;  // relative energy of a channel without a class
// A label whose energy is so much above another's has a marginal of 0, whatever its energy. Were it
// not bounded, the differences of a large energy of the last label would have no digits left.
constexpr float kLargest = 1000;

// Calls fill(first, count, rows of the tile) for tiles of points.
template <typename Fill>
void for_tiles(const Grouping& grouping, int64_t points, int threads, const Fill& fill) {
  const int64_t tile = kTransposed / grouping.width;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t first = 0; first < points; first += tile) {
    fill(first, std::min(tile, points - first));
  }
}

// rows[first + i] = value(plane, i) for `count` points, and `padding` where there is no plane.
template <typename Value>
void fill_rows(const Grouping& s, int64_t points, int64_t first, int64_t count, float padding,
               float* rows, const Value& value) {
  for (int64_t c = 0; c < s.groups * s.width; ++c) {
    float* to = rows + (c / s.width * points + first) * s.width + c % s.width;
    if (c < s.channels) {
      for (int64_t i = 0; i < count; ++i) to[i * s.width] = value(c, i);
    } else {
      for (int64_t i = 0; i < count; ++i) to[i * s.width] = padding;
    }
  }
}

}  // namespace

Grouping::Grouping(int64_t channels)
    : channels(channels),
      groups((channels + kLargestWidth - 1) / kLargestWidth),
      width(groups == 0 ? 1 : width_for((channels + groups - 1) / groups)) {}

void rows_of_planes(const Grouping& grouping, int64_t points, const float* planes, float* rows,
                    int threads) {
  for_tiles(grouping, points, threads, [&](int64_t first, int64_t count) {
    fill_rows(grouping, points, first, count, 0, rows,
              [&](int64_t c, int64_t i) { return planes[c * points + first + i]; });
  });
}

void difference_rows(const Grouping& grouping, int64_t points, const float* marginals, float* rows,
                     int threads) {
  const float* last = marginals + grouping.channels * points;
  for_tiles(grouping, points, threads, [&](int64_t first, int64_t count) {
    fill_rows(grouping, points, first, count, 0, rows, [&](int64_t c, int64_t i) {
      return marginals[c * points + first + i] - last[first + i];
    });
  });
}

void relative_rows(const Grouping& grouping, int64_t points, const float* unary, float* rows,
                   int threads) {
  for_tiles(grouping, points, threads, [&](int64_t first, int64_t count) {
    float last[kTransposed];
    std::fill_n(last, count, std::numeric_limits<float>::max());
    for (int64_t c = 0; c < grouping.channels; ++c) {
      const float* plane = unary + c * points + first;
      for (int64_t i = 0; i < count; ++i) last[i] = std::min(last[i], plane[i] + kLargest);
    }
    const float* of_last = unary + grouping.channels * points + first;
    for (int64_t i = 0; i < count; ++i) last[i] = std::min(last[i], of_last[i]);
    fill_rows(grouping, points, first, count, kPadding, rows,
              [&](int64_t c, int64_t i) { return last[i] - unary[c * points + first + i]; });
  });
}

void planes_of_rows(const Grouping& s, int64_t points, int64_t count, const float* rows,
                    float* planes) {
  const int64_t tile = kTransposed / s.width;
  for (int64_t first = 0; first < count; first += tile) {
    const int64_t end = std::min(first + tile, count);
    for (int64_t c = 0; c < s.channels; ++c) {
      const float* from = rows + c / s.width * count * s.width + c % s.width;
      float* plane = planes + c * points;
      for (int64_t i = first; i < end; ++i) plane[i] = from[i * s.width];
    }
  }
}

}  // namespace c2am
