#include "dense_crf/features.h"

#include <algorithm>
#include <array>

namespace c2am {

Features image_features(const uint8_t* image, int64_t height, int64_t width, double sxy,
                        double srgb) {
  std::array<double, 256> level;
  for (int i = 0; i < 256; ++i) level[i] = i / srgb;
  std::vector<double> place(std::max(height, width));
  for (size_t i = 0; i < place.size(); ++i) place[i] = static_cast<double>(i) / sxy;
  const double right = (width - 1) / sxy, bottom = (height - 1) / sxy;
  return {5,
          height * width,
          {0, 0, 0, 0, 0},
          {right, bottom, level[255], level[255], level[255]},
          [=](int64_t first, int64_t count, double* to, int64_t stride) {
            int64_t y = first / width, x = first % width;
            for (int64_t i = 0; i < count; ++i) {
              const uint8_t* rgb = image + 3 * (first + i);
              to[i] = place[x];
              to[stride + i] = place[y];
              for (int c = 0; c < 3; ++c) to[(2 + c) * stride + i] = level[rgb[c]];
              if (++x == width) x = 0, ++y;
            }
          }};
}

Features point_features(const float* values, int64_t points, int dimension) {
  std::vector<double> low, high;
  for (int j = 0; j < dimension; ++j) {
    const auto [least, most] = std::minmax_element(values + j * points, values + (j + 1) * points);
    low.push_back(*least);
    high.push_back(*most);
  }
  return {dimension, points, low, high,
          [=](int64_t first, int64_t count, double* to, int64_t stride) {
            for (int j = 0; j < dimension; ++j) {
              const float* from = values + j * points + first;
              for (int64_t i = 0; i < count; ++i) to[j * stride + i] = from[i];
            }
          }};
}

}  // namespace c2am
