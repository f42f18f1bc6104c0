// The softmax of the mean-field update, on rows of channels as in loops.h. The marginals of a pixel
// sum to 1, so the last class has no channel: a logit is a class's log-odds against it.
#pragma once

#include <cstdint>

namespace c2am::loops {

// Some pixels and what their logits are made of: logit = u + m - m_last, where the messages m of
// all classes sum to `total`.
struct Logits {
  int width;  // channels of a group
  int64_t groups, pixels;
  int64_t stride;  // pixels from one group to the next in `relative_unary` and marginals
  const float* relative_unary;  // (groups, stride, width) u = U_last - U
  const float* total;           // (pixels,)
  float* messages;              // (groups, pixels, width), overwritten
};

// marginals: (groups, stride, width), and last: (pixels,), those of the last class.
void softmax(const Logits& logits, float* marginals, float* last);

// labels[n] = the first of the largest logits, the last class included. last: (pixels,) scratch.
void arg_max(const Logits& logits, int64_t channels, float* last, uint8_t* labels);

}  // namespace c2am::loops
