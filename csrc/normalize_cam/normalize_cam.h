// Normalisation of class activation maps (paper, Eq. 1): each map over (its maximum + eps).
#pragma once

#include <cstdint>

namespace c2am {

// `cam` and `out` (maps, pixels) of element type E. Returns whether all values of `cam` are finite
// and at least 0; `out` is of no use if they are not.
template <typename E>
bool normalize_cam_cpu(const E* cam, E* out, int64_t maps, int64_t pixels, double eps, int threads);

}  // namespace c2am
