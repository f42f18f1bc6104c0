// The softmax of the mean-field update, on rows of channels as in loops.h. Of C classes there are
// C - 1 channels, each compared with the last class: since filtering is linear, the differences
// Q - Q_last of the marginals are filtered, and give the log-odds u + m - m_last themselves.
#pragma once

#include <cstdint>

namespace c2am::loops {

// Some pixels, with channels in groups of `width`.
struct Pixels {
  int width;
  int64_t groups, pixels, stride;
  const float* relative_unary;  // (groups, stride, width) u = U_last - U
  float* values;                // (groups, pixels, width) on input m - m_last
};

// values: Q, and last: (pixels,), that of the last class.
void softmax(const Pixels& s, float* last);

// scaled: (groups, stride, width), norm * (Q - Q_last) for norm: (pixels,). Overwrites the values.
void softmax_differences(const Pixels& s, const float* norm, float* scaled);

// labels[n] = the first of the classes with the largest Q.
void arg_max(const Pixels& s, int64_t channels, uint8_t* labels);

}  // namespace c2am::loops
