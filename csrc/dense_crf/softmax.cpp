#include "dense_crf/softmax.h"

#include <utility>

#include "dense_crf/exponential.h"
#include "dense_crf/row.h"
#include "simd.h"

namespace c2am::loops {
namespace {

// Pixels that go through all steps before the next ones, in L1. What the next ones read and write
// is fetched meanwhile.
constexpr int64_t kChunk = 64;

template <int N>
C2AM_INLINE void exponentials(float* values, int64_t n) {
  Vector<N> x;
  for (; n >= N; n -= N, values += N) {
    load(x, values);
    exponential<N>(x);
    store(values, x);
  }
  x = Vector<N>{};
  std::memcpy(&x, values, n * sizeof(float));
  exponential<N>(x);
  std::memcpy(values, &x, n * sizeof(float));
}

// values: the logits of the pixels first .. end - 1, less their maximum or 0, and last: that of the
// last class. A pixel stays in registers if it has one group of channels.
template <int W>
C2AM_INLINE void to_logits(Pixels s, int64_t first, int64_t end, float* last) {
  for (int64_t n = first; n < end; ++n) {
    Row<W> logit, unary;
    float top = 0;
    for (int64_t g = 0; g < s.groups; ++g) {
      float* at = s.values + (g * s.pixels + n) * W;
      const float* of_pixel = s.relative_unary + (g * s.stride + n) * W;
      Row<W>::prefetch(of_pixel + kChunk * W);
      logit.load(at);
      unary.load(of_pixel);
      logit.add(unary);
      const float largest = logit.max();
      top = largest > top ? largest : top;
      if (s.groups > 1) logit.store(at);
    }
    for (int64_t g = 0; g < s.groups; ++g) {
      float* at = s.values + (g * s.pixels + n) * W;
      if (s.groups > 1) logit.load(at);
      logit.add(-top);
      logit.store(at);
    }
    last[n - first] = -top;
  }
}

template <int W>
C2AM_INLINE void normalise(Pixels s, int64_t first, int64_t end, float* last, const float* norm,
                           float* scaled) {
  for (int64_t n = first; n < end; ++n) {
    Row<W> value;
    float& of_last = last[n - first];
    float sum = of_last;
    for (int64_t g = 0; g < s.groups; ++g) {
      value.load(s.values + (g * s.pixels + n) * W);
      sum += value.sum();
    }
    const float share = 1 / sum;
    of_last *= share;
    for (int64_t g = 0; g < s.groups; ++g) {
      float* at = s.values + (g * s.pixels + n) * W;
      if (s.groups > 1) value.load(at);
      value.scale(share);
      if (scaled == nullptr) {
        value.store(at);
      } else {
        value.add(-of_last);
        value.scale(norm[n]);
        float* to = scaled + (g * s.stride + n) * W;
        Row<W>::prefetch(to + kChunk * W);
        value.store(to);
      }
    }
  }
}

// Each lane's neighbour in the pair that it is of.
template <int N, size_t... Lane>
C2AM_INLINE void swap_pairs(Vector<N>& other, const Vector<N>& v, std::index_sequence<Lane...>) {
  other = __builtin_shufflevector(v, v, static_cast<int>(Lane ^ 1)...);
}
template <int N, size_t... Lane>
C2AM_INLINE void load_pairs(Vector<N>& v, const float* from, std::index_sequence<Lane...>) {
  Vector<N / 2> each;
  load(each, from);
  v = __builtin_shufflevector(each, each, static_cast<int>(Lane / 2)...);
}

// All of it for N / W pixels of W = 1 or 2 channels at once. Returns the number of pixels done.
template <int W, int N>
C2AM_INLINE int64_t softmax_narrow(Pixels s, float* last, const float* norm, float* scaled) {
  const auto lanes = std::make_index_sequence<N>();
  int64_t n = 0;
  for (; n + N / W <= s.pixels; n += N / W) {
    Vector<N> value, other, top;
    load(value, s.values + n * W);
    load(other, s.relative_unary + n * W);
    value += other;
    top = value > 0.0f ? value : Vector<N>{};
    if constexpr (W == 2) {
      swap_pairs<N>(other, top, lanes);
      top = top > other ? top : other;
    }
    value -= top;
    Vector<N> of_last = -top;
    exponential<N>(value);
    exponential<N>(of_last);
    Vector<N> sum = value + of_last;
    if constexpr (W == 2) {
      swap_pairs<N>(other, value, lanes);
      sum += other;
    }
    const Vector<N> share = 1.0f / sum;
    value *= share;
    of_last *= share;
    if (scaled == nullptr) {
      for (int p = 0; p < N / W; ++p) last[n + p] = of_last[p * W];
      store(s.values + n * W, value);
    } else {
      value -= of_last;
      if constexpr (W == 2) {
        load_pairs<N>(other, norm + n, lanes);
      } else {
        load(other, norm + n);
      }
      store(scaled + n * W, value * other);
    }
  }
  return n;
}

// scaled: null for marginals, with `last` of all pixels.
template <int W, int N>
C2AM_INLINE void softmax_rows(Pixels s, float* last, const float* norm, float* scaled) {
  int64_t first = 0;
  if constexpr (W <= 2) first = softmax_narrow<W, N>(s, last, norm, scaled);
  for (; first < s.pixels; first += kChunk) {
    const int64_t end = first + kChunk < s.pixels ? first + kChunk : s.pixels;
    float of_chunk[kChunk];
    float* own_last = scaled == nullptr ? last + first : of_chunk;
    to_logits<W>(s, first, end, own_last);
    for (int64_t g = 0; g < s.groups; ++g) {
      exponentials<N>(s.values + (g * s.pixels + first) * W, (end - first) * W);
    }
    exponentials<N>(own_last, end - first);
    normalise<W>(s, first, end, own_last, norm, scaled);
  }
}

template <int Bytes>
C2AM_INLINE void softmax_either_body(const Pixels& s, float* last, const float* norm,
                                     float* scaled) {
  constexpr int N = Bytes / sizeof(float);
  C2AM_FOR_WIDTH(s.width, softmax_rows, (s, last, norm, scaled), N)
}

C2AM_DISPATCH_BYTES(softmax_either,
                    (const Pixels& s, float* last, const float* norm, float* scaled),
                    (s, last, norm, scaled))

}  // namespace

void softmax(const Pixels& s, float* last) { softmax_either(s, last, nullptr, nullptr); }

void softmax_differences(const Pixels& s, const float* norm, float* scaled) {
  softmax_either(s, nullptr, norm, scaled);
}

void arg_max(const Pixels& s, int64_t channels, uint8_t* labels) {
  for (int64_t n = 0; n < s.pixels; ++n) {
    float best = 0;  // of the last class
    int64_t label = channels;
    for (int64_t c = channels - 1; c >= 0; --c) {
      const int64_t group = c / s.width, i = c % s.width;
      const float logit = s.values[(group * s.pixels + n) * s.width + i] +
                          s.relative_unary[(group * s.stride + n) * s.width + i];
      if (logit >= best) best = logit, label = c;
    }
    labels[n] = static_cast<uint8_t>(label);
  }
}

}  // namespace c2am::loops
