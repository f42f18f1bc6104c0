#include "dense_crf/loops.h"

#include "dense_crf/permutohedral.h"
#include "simd.h"

namespace c2am::loops {
namespace {

constexpr int kCorners = PermutohedralLattice::kCorners;

template <int W>
C2AM_INLINE void splat_groups(const int32_t* start, const int32_t* entry_pixel,
                              const float* entry_weight, const float* from, float* values,
                              int64_t first, int64_t last) {
  for (int64_t v = first; v < last; ++v) {
    Vector<W> sum = {}, value;
    for (int32_t e = start[v]; e < start[v + 1]; ++e) {
      load(value, from + int64_t{entry_pixel[e]} * W);
      sum += entry_weight[e] * value;
    }
    store(values + v * W, sum);
  }
}

template <int W>
C2AM_INLINE void blur_groups(const int32_t* neighbours, const float* from, float* to, int64_t first,
                             int64_t last) {
  for (int64_t v = first; v < last; ++v) {
    Vector<W> self, one, other;
    load(self, from + v * W);
    load(one, from + int64_t{neighbours[2 * v]} * W);
    load(other, from + int64_t{neighbours[2 * v + 1]} * W);
    store(to + v * W, self + 0.5f * (one + other));
  }
}

template <int W>
C2AM_INLINE void slice_groups(const int32_t* corner, const float* weight, const float* values,
                              float* to, int64_t first, int64_t last) {
  for (int64_t n = first; n < last; ++n, to += W) {
    Vector<W> sum, value;
    load(sum, to);
    for (int k = 0; k < kCorners; ++k) {
      load(value, values + int64_t{corner[n * kCorners + k]} * W);
      sum += weight[n * kCorners + k] * value;
    }
    store(to, sum);
  }
}

// x = exp(x) for x <= 0, with 0 below -87, where float32 ends: 2^n times a polynomial on the rest.
template <int W>
C2AM_INLINE void exponential(Vector<W>& x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const auto in_range = x > -87.0f;
  x = in_range ? x : Vector<W>{};
  const Vector<W> n = (x * kLog2E + kRound) - kRound;
  const Vector<W> r = (x - n * kLn2High) - n * kLn2Low;
  Vector<W> p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  using Bits = decltype(in_range);
  const Bits exponent = (__builtin_convertvector(n, Bits) + 127) << 23;
  Vector<W> power;
  std::memcpy(&power, &exponent, sizeof(power));
  x = in_range ? p * power : Vector<W>{};
}

template <int W>
C2AM_INLINE void softmax_groups(float* values, int64_t groups, int64_t group_stride,
                                int64_t pixels) {
  for (int64_t n = 0; n < pixels; ++n) {
    float* pixel = values + n * W;
    Vector<W> largest, value, total = {};
    load(largest, pixel);
    for (int64_t g = 1; g < groups; ++g) {
      load(value, pixel + g * group_stride);
      largest = value > largest ? value : largest;
    }
    float top = largest[0], sum = 0;
    for (int c = 1; c < W; ++c) top = largest[c] > top ? largest[c] : top;
    for (int64_t g = 0; g < groups; ++g) {
      load(value, pixel + g * group_stride);
      value -= top;
      exponential<W>(value);
      total += value;
      store(pixel + g * group_stride, value);
    }
    for (int c = 0; c < W; ++c) sum += total[c];
    for (int64_t g = 0; g < groups; ++g) {
      load(value, pixel + g * group_stride);
      store(pixel + g * group_stride, value / sum);
    }
  }
}

C2AM_INLINE void splat_body(int width, const int32_t* start, const int32_t* entry_pixel,
                            const float* entry_weight, const float* from, float* values,
                            int64_t first, int64_t last) {
  if (width == 4) {
    splat_groups<4>(start, entry_pixel, entry_weight, from, values, first, last);
  } else {
    splat_groups<8>(start, entry_pixel, entry_weight, from, values, first, last);
  }
}

C2AM_INLINE void blur_body(int width, const int32_t* neighbours, const float* from, float* to,
                           int64_t first, int64_t last) {
  if (width == 4) {
    blur_groups<4>(neighbours, from, to, first, last);
  } else {
    blur_groups<8>(neighbours, from, to, first, last);
  }
}

C2AM_INLINE void slice_body(int width, const int32_t* corner, const float* weight,
                            const float* values, float* to, int64_t first, int64_t last) {
  if (width == 4) {
    slice_groups<4>(corner, weight, values, to, first, last);
  } else {
    slice_groups<8>(corner, weight, values, to, first, last);
  }
}

C2AM_INLINE void correlate_body(const float* from, int64_t stride, const float* taps, int64_t count,
                                float* to, int64_t n) {
  using V = Vector<16>;
  int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    V sum = {}, second = {}, value;
    for (int64_t t = 0; t < count; ++t) {
      load(value, from + i + t * stride);
      sum += taps[t] * value;
      load(value, from + i + t * stride + 16);
      second += taps[t] * value;
    }
    store(to + i, sum);
    store(to + i + 16, second);
  }
  for (; i < n; ++i) {
    float sum = 0;
    for (int64_t t = 0; t < count; ++t) sum += taps[t] * from[i + t * stride];
    to[i] = sum;
  }
}

C2AM_INLINE void softmax_body(int width, float* values, int64_t groups, int64_t group_stride,
                              int64_t pixels) {
  if (width == 4) {
    softmax_groups<4>(values, groups, group_stride, pixels);
  } else {
    softmax_groups<8>(values, groups, group_stride, pixels);
  }
}

}  // namespace

C2AM_DISPATCH(splat,
              (int width, const int32_t* start, const int32_t* entry_pixel,
               const float* entry_weight, const float* from, float* values, int64_t first,
               int64_t last),
              (width, start, entry_pixel, entry_weight, from, values, first, last))
C2AM_DISPATCH(blur,
              (int width, const int32_t* neighbours, const float* from, float* to, int64_t first,
               int64_t last),
              (width, neighbours, from, to, first, last))
C2AM_DISPATCH(slice,
              (int width, const int32_t* corner, const float* weight, const float* values,
               float* to, int64_t first, int64_t last),
              (width, corner, weight, values, to, first, last))
C2AM_DISPATCH(correlate,
              (const float* from, int64_t stride, const float* taps, int64_t count, float* to,
               int64_t n),
              (from, stride, taps, count, to, n))
C2AM_DISPATCH(softmax,
              (int width, float* values, int64_t groups, int64_t group_stride, int64_t pixels),
              (width, values, groups, group_stride, pixels))

}  // namespace c2am::loops
