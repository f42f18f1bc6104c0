// The inner loops of the spatial kernel.
#pragma once

#include <cstdint>

namespace c2am::loops {

// to[r * to_stride + i] = sum over t of taps[t * outputs + r] * from[i + t * stride] for i below n
// and r below outputs, which is 1 or kCorrelated.
constexpr int kCorrelated = 4;
void correlate(int outputs, const float* from, int64_t stride, const float* taps, int64_t count,
               float* to, int64_t to_stride, int64_t n);

// The same of one output, for a stride of `width`.
void correlate_row(int width, const float* from, const float* taps, int64_t count, float* to,
                   int64_t n);

// to = one * other, element by element; `to` may be `other`.
void multiply(const float* one, const float* other, float* to, int64_t n);

}  // namespace c2am::loops
