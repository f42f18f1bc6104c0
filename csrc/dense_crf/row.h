// A row of W channels in registers.
#pragma once

#include <cstdint>

#include "simd.h"

// Calls a function template on the width for a width that is known only when the program runs.
#define C2AM_FOR_WIDTH(width, function, arguments) \
  switch (width) {                                 \
    case 1:                                        \
      return function<1> arguments;                \
    case 2:                                        \
      return function<2> arguments;                \
    case 4:                                        \
      return function<4> arguments;                \
    case 8:                                        \
      return function<8> arguments;                \
    case 12:                                       \
      return function<12> arguments;               \
    case 16:                                       \
      return function<16> arguments;               \
    case 20:                                       \
      return function<20> arguments;               \
    case 24:                                       \
      return function<24> arguments;               \
    case 28:                                       \
      return function<28> arguments;               \
    case 32:                                       \
      return function<32> arguments;               \
  }

namespace c2am {

// The widths of that macro, which pad the least.
constexpr int kLargestWidth = 32;
constexpr int width_for(int64_t channels) {
  return static_cast<int>(channels <= 2 ? channels : (channels + 3) / 4 * 4);
}

// W = 16 + 4 floats are a vector of 16 and a row of 4, and so on.
template <int W>
struct Row {
  static constexpr int kHead = W >= 16 ? 16 : W >= 8 ? 8 : W >= 4 ? 4 : W >= 2 ? 2 : 1;
  Vector<kHead> head;
  Row<W - kHead> tail;

  C2AM_INLINE void clear() {
    head = Vector<kHead>{};
    tail.clear();
  }
  C2AM_INLINE void load(const float* from) {
    c2am::load(head, from);
    tail.load(from + kHead);
  }
  C2AM_INLINE void store(float* to) const {
    c2am::store(to, head);
    tail.store(to + kHead);
  }
  C2AM_INLINE void add(const Row& other) {
    head += other.head;
    tail.add(other.tail);
  }
  C2AM_INLINE void add(float weight, const Row& other) {
    head += weight * other.head;
    tail.add(weight, other.tail);
  }
  C2AM_INLINE void add(float value) {
    head += value;
    tail.add(value);
  }
  C2AM_INLINE void scale(float factor) {
    head *= factor;
    tail.scale(factor);
  }
  C2AM_INLINE float sum() const {
    float total = tail.sum();
    for (int c = 0; c < kHead; ++c) total += head[c];
    return total;
  }
  C2AM_INLINE float max() const {
    float top = head[0];
    for (int c = 1; c < kHead; ++c) top = head[c] > top ? head[c] : top;
    if constexpr (W > kHead) {
      const float other = tail.max();
      top = other > top ? other : top;
    }
    return top;
  }
};

template <>
struct Row<0> {
  C2AM_INLINE void clear() {}
  C2AM_INLINE void load(const float*) {}
  C2AM_INLINE void store(float*) const {}
  C2AM_INLINE void add(const Row&) {}
  C2AM_INLINE void add(float, const Row&) {}
  C2AM_INLINE void add(float) {}
  C2AM_INLINE void scale(float) {}
  C2AM_INLINE float sum() const { return 0; }
};

}  // namespace c2am
