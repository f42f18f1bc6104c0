#pragma once

#include <cstdint>

namespace c2am::loops {

// to += from * matrix, for rows of channels in groups. from, to: (groups, pixels, width); matrix:
// (groups * width, groups * width).
void mix(int width, int64_t groups, int64_t pixels, const float* from, const float* matrix,
         float* to);

}  // namespace c2am::loops
