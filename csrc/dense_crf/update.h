// The inner loops of the mean-field update, on rows of channels as in loops.h. The marginals of a
// pixel sum to 1, so the last class has no channel: a logit is a class's log-odds against it.
#pragma once

#include <cstdint>

namespace c2am::loops {

// to[i] = sum over t of taps[t] * from[i + t * stride], for i from 0 to n - 1.
void correlate(const float* from, int64_t stride, const float* taps, int64_t count, float* to,
               int64_t n);

// to[n] = scale[n] * from[n], for rows of channels; `to` may be `from`.
void scale_pixels(int width, const float* scale, const float* from, float* to, int64_t pixels);

// Some pixels; channels in groups of `width`.
struct Pixels {
  int width;
  int64_t groups, pixels;
};

// logits: (groups, pixels, width). On input the messages m, on output u + m - m_last, less their
// maximum or 0; that of the last class goes to last: (pixels,). total: (pixels,) sum of the
// messages over all classes. relative_unary: (groups, stride, width) u = U_last - U.
void to_logits(const Pixels& shape, const float* total, const float* relative_unary, int64_t stride,
               float* logits, float* last);

// In place: exp(x) for x <= 0.
void exponentials(float* values, int64_t n);

// Marginals from the exponentials, of which those of the last class are in place.
// exponentials: (groups, pixels, width), marginals: (groups, stride, width).
void normalise(const Pixels& shape, const float* exponentials, float* marginals, int64_t stride,
               float* last);

// labels[n] = the first of the largest logits, the last class included.
void arg_max(const Pixels& shape, int64_t channels, const float* logits, const float* last,
             uint8_t* labels);

}  // namespace c2am::loops
