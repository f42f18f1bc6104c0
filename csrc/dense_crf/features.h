// Points of the space in which a Gaussian kernel compares pixels, in its standard deviations.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace c2am {

struct Features {
  int dimension;
  int64_t points;
  std::vector<double> low, high;  // bounds of each feature
  // to[j * stride + i] = feature j of point first + i, for i below count.
  std::function<void(int64_t first, int64_t count, double* to, int64_t stride)> read;
};

// (x / sxy, y / sxy, rgb / srgb) of every pixel of image: (H, W, 3) uint8, which must stay.
Features image_features(const uint8_t* image, int64_t height, int64_t width, double sxy,
                        double srgb);

// values: (d, N), finite, which must stay.
Features point_features(const float* values, int64_t points, int dimension);

}  // namespace c2am
