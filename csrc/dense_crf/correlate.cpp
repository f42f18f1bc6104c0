#include "dense_crf/correlate.h"

#include "simd.h"

namespace c2am::loops {
namespace {

// Sums `count` shifted stretches of 16 K floats for R outputs at once, so that what is loaded
// serves R times. taps: (count, R).
template <int R, int K>
C2AM_INLINE void correlate_stretch(const float* from, int64_t stride, const float* taps,
                                   int64_t count, float* to, int64_t to_stride) {
  Vector<16> sum[R][K] = {}, value;
  for (int64_t t = 0; t < count; ++t) {
    for (int k = 0; k < K; ++k) {
      load(value, from + t * stride + 16 * k);
      for (int r = 0; r < R; ++r) sum[r][k] += taps[t * R + r] * value;
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int k = 0; k < K; ++k) store(to + r * to_stride + 16 * k, sum[r][k]);
  }
}

template <int R>
C2AM_INLINE void correlate_outputs(const float* from, int64_t stride, const float* taps,
                                   int64_t count, float* to, int64_t to_stride, int64_t n) {
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    correlate_stretch<R, 4>(from + i, stride, taps, count, to + i, to_stride);
  }
  for (; i + 16 <= n; i += 16) {
    correlate_stretch<R, 1>(from + i, stride, taps, count, to + i, to_stride);
  }
  if (n >= 16 && i < n) {  // the last ones again, with those before them
    i = n - 16;
    correlate_stretch<R, 1>(from + i, stride, taps, count, to + i, to_stride);
    return;
  }
  for (; i < n; ++i) {
    for (int r = 0; r < R; ++r) {
      float sum = 0;
      for (int64_t t = 0; t < count; ++t) sum += taps[t * R + r] * from[i + t * stride];
      to[r * to_stride + i] = sum;
    }
  }
}

C2AM_INLINE void correlate_body(int outputs, const float* from, int64_t stride, const float* taps,
                                int64_t count, float* to, int64_t to_stride, int64_t n) {
  if (outputs == 1) {
    correlate_outputs<1>(from, stride, taps, count, to, to_stride, n);
  } else {
    correlate_outputs<kCorrelated>(from, stride, taps, count, to, to_stride, n);
  }
}

C2AM_INLINE void multiply_body(const float* one, const float* other, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = one[i] * other[i];
}

}  // namespace

C2AM_DISPATCH(correlate,
              (int outputs, const float* from, int64_t stride, const float* taps, int64_t count,
               float* to, int64_t to_stride, int64_t n),
              (outputs, from, stride, taps, count, to, to_stride, n))
C2AM_DISPATCH(multiply, (const float* one, const float* other, float* to, int64_t n),
              (one, other, to, n))

}  // namespace c2am::loops
