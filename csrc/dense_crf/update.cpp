#include "dense_crf/update.h"

#include "dense_crf/row.h"
#include "simd.h"

namespace c2am::loops {
namespace {

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

template <int W>
C2AM_INLINE void scale_rows(const float* scale, const float* from, float* to, int64_t pixels) {
  for (int64_t n = 0; n < pixels; ++n) {
    Row<W> row;
    row.load(from + n * W);
    row.scale(scale[n]);
    row.store(to + n * W);
  }
}

template <int W>
C2AM_INLINE void to_logits_rows(const Pixels& s, const float* total, const float* unary,
                                int64_t stride, float* logits, float* last) {
  for (int64_t n = 0; n < s.pixels; ++n) {
    float shift = -total[n];
    for (int64_t g = 0; g < s.groups; ++g) {
      const int64_t at = (g * s.pixels + n) * W;
      Row<W> logit, other;
      logit.load(logits + at);
      shift += logit.sum();
      other.load(unary + (g * stride + n) * W);
      logit.add(other);
      logit.store(logits + at);
    }
    float top = 0;
    for (int64_t g = 0; g < s.groups; ++g) {
      Row<W> logit;
      logit.load(logits + (g * s.pixels + n) * W);
      const float largest = logit.max() + shift;
      top = largest > top ? largest : top;
    }
    for (int64_t g = 0; g < s.groups; ++g) {
      float* at = logits + (g * s.pixels + n) * W;
      Row<W> logit;
      logit.load(at);
      logit.add(shift - top);
      logit.store(at);
    }
    last[n] = -top;
  }
}

// x = exp(x) for x <= 0, with 0 below -87, where float32 ends: 2^n times a polynomial on the rest.
C2AM_INLINE void exponential(Vector<16>& x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const auto in_range = x > -87.0f;
  x = in_range ? x : Vector<16>{};
  const Vector<16> n = (x * kLog2E + kRound) - kRound;
  const Vector<16> r = (x - n * kLn2High) - n * kLn2Low;
  Vector<16> p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  using Bits = decltype(in_range);
  const Bits exponent = (__builtin_convertvector(n, Bits) + 127) << 23;
  Vector<16> power;
  std::memcpy(&power, &exponent, sizeof(power));
  x = in_range ? p * power : Vector<16>{};
}

C2AM_INLINE void exponentials_body(float* values, int64_t n) {
  Vector<16> x;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    load(x, values + i);
    exponential(x);
    store(values + i, x);
  }
  if (i < n) {
    x = Vector<16>{};
    std::memcpy(&x, values + i, (n - i) * sizeof(float));
    exponential(x);
    std::memcpy(values + i, &x, (n - i) * sizeof(float));
  }
}

template <int W>
C2AM_INLINE void normalise_rows(const Pixels& s, const float* exponentials, float* marginals,
                                int64_t stride, float* last) {
  for (int64_t n = 0; n < s.pixels; ++n) {
    Row<W> value;
    float sum = last[n];
    for (int64_t g = 0; g < s.groups; ++g) {
      value.load(exponentials + (g * s.pixels + n) * W);
      sum += value.sum();
    }
    const float share = 1 / sum;
    for (int64_t g = 0; g < s.groups; ++g) {
      value.load(exponentials + (g * s.pixels + n) * W);
      value.scale(share);
      value.store(marginals + (g * stride + n) * W);
    }
    last[n] *= share;
  }
}

C2AM_INLINE void scale_pixels_body(int width, const float* scale, const float* from, float* to,
                                   int64_t pixels){
    C2AM_FOR_WIDTH(width, scale_rows, (scale, from, to, pixels))}

C2AM_INLINE void to_logits_body(const Pixels& shape, const float* total, const float* unary,
                                int64_t stride, float* logits, float* last){
    C2AM_FOR_WIDTH(shape.width, to_logits_rows, (shape, total, unary, stride, logits, last))}

C2AM_INLINE void normalise_body(const Pixels& shape, const float* exponentials, float* marginals,
                                int64_t stride, float* last) {
  C2AM_FOR_WIDTH(shape.width, normalise_rows, (shape, exponentials, marginals, stride, last))
}

}  // namespace

C2AM_DISPATCH(correlate,
              (const float* from, int64_t stride, const float* taps, int64_t count, float* to,
               int64_t n),
              (from, stride, taps, count, to, n))
C2AM_DISPATCH(scale_pixels,
              (int width, const float* scale, const float* from, float* to, int64_t pixels),
              (width, scale, from, to, pixels))
C2AM_DISPATCH(to_logits,
              (const Pixels& shape, const float* total, const float* relative_unary, int64_t stride,
               float* logits, float* last),
              (shape, total, relative_unary, stride, logits, last))
C2AM_DISPATCH(exponentials, (float* values, int64_t n), (values, n))
C2AM_DISPATCH(normalise,
              (const Pixels& shape, const float* exponentials, float* marginals, int64_t stride,
               float* last),
              (shape, exponentials, marginals, stride, last))

void arg_max(const Pixels& s, int64_t channels, const float* logits, const float* last,
             uint8_t* labels) {
  for (int64_t n = 0; n < s.pixels; ++n) {
    float best = logits[n * s.width];
    int64_t label = 0;
    for (int64_t c = 1; c < channels; ++c) {
      const float logit = logits[(c / s.width * s.pixels + n) * s.width + c % s.width];
      if (logit > best) best = logit, label = c;
    }
    labels[n] = static_cast<uint8_t>(last[n] > best ? channels : label);
  }
}

}  // namespace c2am::loops
