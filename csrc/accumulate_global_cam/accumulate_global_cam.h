// Running sum of the normalised maps of each class: the Global CAM (paper, Eq. 2).
//
//   total_z = sum of the maps of class z that are not all zero,   count_z = their number
#pragma once

#include <cstdint>

namespace c2am {

// Adds `cam` (maps, pixels) of the classes `class_index` (maps,), all valid, to `total` (Z, pixels)
// and `count` (Z,), in the order of the maps. Into doubles each value is first rounded to a
// multiple of 2^-30, which makes the sums exact. If a value is not in 0..1, nothing is added and
// the result is false.
template <typename E, typename T>
bool accumulate_global_cam_cpu(const E* cam, const int64_t* class_index, T* total, int64_t* count,
                               int64_t maps, int64_t pixels, int threads);

}  // namespace c2am
