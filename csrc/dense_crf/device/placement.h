// Where a pixel lies in the permutohedral lattice: the very numbers of placement.cpp.
#pragma once

#include <cstring>

#include "dense_crf/placement.h"
#include "vec.h"

namespace c2am::device {

constexpr int kDimension = 5;  // x, y, red, green, blue
constexpr int kAxes = kDimension + 1;

// Keys of vertices: coordinates in a mixed radix, of which the first digit is the image. A step
// along an axis adds a constant.
struct Keys {
  Slope slope[kDimension];
  double lowest[kDimension];
  uint64_t place[kDimension], step[kAxes], image;
  double bits;  // of the keys of one image

  explicit Keys(const Grid& grid) : step{}, image(1), bits(grid.key_bits()) {
    for (int j = kDimension - 1; j >= 0; --j) {
      slope[j] = grid.slope[j];
      lowest[j] = grid.lowest[j];
      place[j] = step[j + 1] = image;
      step[0] += image;
      if (bits < 63) image *= static_cast<uint64_t>(grid.extent[j]);
    }
  }
};

// Rounded one by one, as on the host: which vertices exist hangs on the last bit.
C2AM_HD double product_and_sum(double a, double b, double c) {
#ifdef __CUDA_ARCH__
  return __dadd_rn(c, __dmul_rn(a, b));
#else
  return c + a * b;
#endif
}

C2AM_HD int64_t bits_of(double value) {
#ifdef __CUDA_ARCH__
  return __double_as_longlong(value);
#else
  int64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
#endif
}
C2AM_HD double from_bits(int64_t bits) {
#ifdef __CUDA_ARCH__
  return __longlong_as_double(bits);
#else
  double value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
#endif
}

// The keys of the simplex around a point of an image, and its barycentric coordinates.
C2AM_HD void place(const Keys& keys, int64_t image, const double* features, uint64_t* key,
                   float* weight) {
  int64_t fraction[kDimension];  // as in c2am::Placement
  double sum = 0;
  uint64_t corner = static_cast<uint64_t>(image) * keys.image;
  for (int j = 0; j < kDimension; ++j) {
    const double position = product_and_sum(keys.slope[j].own, features[j], sum);
    const double base = floor(position);
    sum = product_and_sum(keys.slope[j].later, features[j], sum);
    corner += static_cast<uint64_t>(base - keys.lowest[j]) * keys.place[j];
    fraction[j] = (bits_of(position - base) & ~kCoordinate) | j;
  }
  for (int end = kDimension - 1; end > 0; --end) {
    for (int k = 0; k < end; ++k) {
      const int64_t a = fraction[k], b = fraction[k + 1];
      fraction[k] = a > b ? a : b;
      fraction[k + 1] = a > b ? b : a;
    }
  }
  double before = 1;
  for (int k = 0; k < kDimension; ++k) {
    key[k] = corner;
    weight[k] = static_cast<float>(before - from_bits(fraction[k]));
    before = from_bits(fraction[k]);
    corner += keys.place[fraction[k] & kCoordinate];
  }
  key[kDimension] = corner;
  weight[kDimension] = static_cast<float>(before);
}

}  // namespace c2am::device
