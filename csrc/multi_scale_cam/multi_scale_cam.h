// Class maps of several scales as one: resized, summed, and each over its maximum (paper, Eq. 1).
#pragma once

#include <cstdint>
#include <vector>

namespace c2am {

// Maps (count, height, width) of one scale.
template <typename T>
struct ScaleMaps {
  const T* maps;
  int64_t height, width;
};

// The size to which maps are resized, and how much of it is kept from the upper left corner.
struct MergedSize {
  int64_t height, width, kept_height, kept_width;
};

// out (count, kept_height, kept_width) = sum / (max(sum) + eps), sum the resized maps of all
// scales, which are at least 0.
template <typename T>
void multi_scale_cam_cpu(const std::vector<ScaleMaps<T>>& scales, T* out, int64_t count,
                         const MergedSize& size, double eps, int threads);

}  // namespace c2am
