#include "dense_crf/softmax.h"

#include "dense_crf/exponential.h"
#include "dense_crf/row.h"
#include "simd.h"

namespace c2am::loops {
namespace {

C2AM_INLINE void exponentials(float* values, int64_t n) {
  Vector<16> x;
  for (; n >= 16; n -= 16, values += 16) {
    load(x, values);
    exponential(x);
    store(values, x);
  }
  x = Vector<16>{};
  std::memcpy(&x, values, n * sizeof(float));
  exponential(x);
  std::memcpy(values, &x, n * sizeof(float));
}

// messages: on output the logits from pixel `first` on, less their maximum or 0, and last: that of
// the last class. A pixel stays in registers if it has one group of channels.
template <int W>
C2AM_INLINE void to_logits(const Logits& s, int64_t first, float* last) {
  for (int64_t n = first; n < s.pixels; ++n) {
    Row<W> logit, unary;
    float shift = -s.total[n], top = 0;
    for (int64_t g = 0; g < s.groups; ++g) {
      logit.load(s.messages + (g * s.pixels + n) * W);
      shift += logit.sum();
    }
    for (int64_t g = 0; g < s.groups; ++g) {
      float* at = s.messages + (g * s.pixels + n) * W;
      if (s.groups > 1) logit.load(at);
      unary.load(s.relative_unary + (g * s.stride + n) * W);
      logit.add(unary);
      logit.add(shift);
      const float largest = logit.max();
      top = largest > top ? largest : top;
      if (s.groups > 1) logit.store(at);
    }
    for (int64_t g = 0; g < s.groups; ++g) {
      float* at = s.messages + (g * s.pixels + n) * W;
      if (s.groups > 1) logit.load(at);
      logit.add(-top);
      logit.store(at);
    }
    last[n] = -top;
  }
}

template <int W>
C2AM_INLINE void normalise(const Logits& s, int64_t first, float* marginals, float* last) {
  for (int64_t n = first; n < s.pixels; ++n) {
    Row<W> value;
    float sum = last[n];
    for (int64_t g = 0; g < s.groups; ++g) {
      value.load(s.messages + (g * s.pixels + n) * W);
      sum += value.sum();
    }
    const float share = 1 / sum;
    for (int64_t g = 0; g < s.groups; ++g) {
      if (s.groups > 1) value.load(s.messages + (g * s.pixels + n) * W);
      value.scale(share);
      value.store(marginals + (g * s.stride + n) * W);
    }
    last[n] *= share;
  }
}

// The lanes of a pixel, W of 16, added up or compared; the result is in all of them.
template <int W>
C2AM_INLINE void sum_lanes(Vector<16>& v) {
  if constexpr (W == 2) {
    v += __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
  }
}
template <int W>
C2AM_INLINE void max_lanes(Vector<16>& v) {
  if constexpr (W == 2) {
    const Vector<16> other =
        __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    v = v > other ? v : other;
  }
}
template <int W>
C2AM_INLINE void load_lanes(Vector<16>& v, const float* from) {
  if constexpr (W == 1) {
    load(v, from);
  } else {
    Vector<8> each;
    load(each, from);
    v = __builtin_shufflevector(each, each, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  }
}

// The same for 16 / W pixels of W = 1 or 2 channels at once. Returns the number of pixels done.
template <int W>
C2AM_INLINE int64_t softmax_narrow(const Logits& s, float* marginals, float* last) {
  int64_t n = 0;
  for (; n + 16 / W <= s.pixels; n += 16 / W) {
    Vector<16> logit, shift, value;
    load(logit, s.messages + n * W);
    shift = logit;
    sum_lanes<W>(shift);
    load_lanes<W>(value, s.total + n);
    shift -= value;
    load(value, s.relative_unary + n * W);
    logit += value + shift;
    Vector<16> top = logit;
    max_lanes<W>(top);
    top = top > 0.0f ? top : Vector<16>{};
    logit -= top;
    Vector<16> of_last = -top;
    exponential(logit);
    exponential(of_last);
    Vector<16> sum = logit;
    sum_lanes<W>(sum);
    sum += of_last;
    logit /= sum;
    of_last /= sum;
    store(marginals + n * W, logit);
    for (int p = 0; p < 16 / W; ++p) last[n + p] = of_last[p * W];
  }
  return n;
}

template <int W>
C2AM_INLINE void softmax_rows(const Logits& s, float* marginals, float* last) {
  int64_t first = 0;
  if constexpr (W <= 2) first = softmax_narrow<W>(s, marginals, last);
  to_logits<W>(s, first, last);
  for (int64_t g = 0; g < s.groups; ++g) {
    exponentials(s.messages + (g * s.pixels + first) * W, (s.pixels - first) * W);
  }
  exponentials(last + first, s.pixels - first);
  normalise<W>(s, first, marginals, last);
}

C2AM_INLINE void softmax_body(const Logits& logits, float* marginals, float* last){
    C2AM_FOR_WIDTH(logits.width, softmax_rows, (logits, marginals, last))}

C2AM_INLINE void final_logits_body(const Logits& logits, float* last) {
  C2AM_FOR_WIDTH(logits.width, to_logits, (logits, 0, last))
}

}  // namespace

C2AM_DISPATCH(softmax, (const Logits& logits, float* marginals, float* last),
              (logits, marginals, last))
C2AM_DISPATCH(final_logits, (const Logits& logits, float* last), (logits, last))

void arg_max(const Logits& s, int64_t channels, float* last, uint8_t* labels) {
  final_logits(s, last);
  for (int64_t n = 0; n < s.pixels; ++n) {
    float best = s.messages[n * s.width];
    int64_t label = 0;
    for (int64_t c = 1; c < channels; ++c) {
      const float logit = s.messages[(c / s.width * s.pixels + n) * s.width + c % s.width];
      if (logit > best) best = logit, label = c;
    }
    labels[n] = static_cast<uint8_t>(last[n] > best ? channels : label);
  }
}

}  // namespace c2am::loops
