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
      // The next stretch: as many streams as taps are more than the processor follows by itself.
      __builtin_prefetch(from + t * stride + 16 * (k + K));
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

// Adds the taps begin .. end - 1, as the first of four sums counts them, to some of the sums.
template <int Width, int First, int Last>
C2AM_INLINE void add_taps(const float* from, const float* taps, int64_t begin, int64_t end,
                          Vector<16>* sum) {
  Vector<16> value;
  for (int64_t t = begin; t < end; ++t) {
    load(value, from + t * Width);
    for (int k = First; k < Last; ++k) sum[k] += taps[t - k * (16 / Width)] * value;
  }
}

// A row of pixels of `Width` channels, which divides 16. Of four vectors that follow each other
// each wants S taps later what the one before it wants, so that what is loaded serves them all.
template <int Width>
C2AM_INLINE void correlate_pixels(const float* from, const float* taps, int64_t count, float* to,
                                  int64_t n) {
  constexpr int64_t S = 16 / Width;
  if (count < 3 * S || n < 64) return correlate_outputs<1>(from, Width, taps, count, to, 0, n);
  for (int64_t next = 0; next < n; next += 64) {
    const int64_t i = next + 64 < n ? next : n - 64;  // the last ones again, with those before them
    Vector<16> sum[4] = {};
    add_taps<Width, 0, 1>(from + i, taps, 0, S, sum);
    add_taps<Width, 0, 2>(from + i, taps, S, 2 * S, sum);
    add_taps<Width, 0, 3>(from + i, taps, 2 * S, 3 * S, sum);
    add_taps<Width, 0, 4>(from + i, taps, 3 * S, count, sum);
    add_taps<Width, 1, 4>(from + i, taps, count, count + S, sum);
    add_taps<Width, 2, 4>(from + i, taps, count + S, count + 2 * S, sum);
    add_taps<Width, 3, 4>(from + i, taps, count + 2 * S, count + 3 * S, sum);
    for (int k = 0; k < 4; ++k) store(to + i + 16 * k, sum[k]);
  }
}

C2AM_INLINE void correlate_row_body(int width, const float* from, const float* taps, int64_t count,
                                    float* to, int64_t n) {
  switch (width) {
    case 1:
      return correlate_pixels<1>(from, taps, count, to, n);
    case 2:
      return correlate_pixels<2>(from, taps, count, to, n);
    case 4:
      return correlate_pixels<4>(from, taps, count, to, n);
    default:
      return correlate_outputs<1>(from, width, taps, count, to, 0, n);
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
C2AM_DISPATCH(correlate_row,
              (int width, const float* from, const float* taps, int64_t count, float* to,
               int64_t n),
              (width, from, taps, count, to, n))
C2AM_DISPATCH(multiply, (const float* one, const float* other, float* to, int64_t n),
              (one, other, to, n))

}  // namespace c2am::loops
