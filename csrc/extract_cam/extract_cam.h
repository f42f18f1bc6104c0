// Class activation maps of the classes that are present (Zhou et al. 2016; paper, Eq. 1):
//
//   CAM = relu(w_z . f) + mirror(relu(w_z . f'))
//
// for the pairs of an image, with features f and f' of its mirror, and a class z of its labels.
#pragma once

#include <cstdint>

namespace c2am {

struct CamShape {
  int64_t images, views, channels, classes, height, width;
  bool channels_last;  // features are (B, V, h, w, C) in memory, not (B, V, C, h, w)
};

// Maps at the resolution of the features, (K, h, w), in the row-major order of `present` (B, Z);
// `weight` is (Z, C). Returns whether all products w_z . f are finite, which they are not where a
// feature is not. T is float, or double for E = double.
template <typename E, typename T>
bool class_maps_cpu(const E* features, const T* weight, const bool* present, T* maps,
                    const CamShape& shape, int threads);

// Bilinear resize (align_corners=False) of (K, h, w) to (K, H, W), written to `out` or, with `add`,
// added to it.
template <typename T>
void resize_maps_cpu(const T* maps, T* out, int64_t count, int64_t height, int64_t width,
                     int64_t out_height, int64_t out_width, bool add, int threads);

}  // namespace c2am
