// A row of W channels in registers.
#pragma once

#include <cstdint>

#include "dense_crf/float16.h"
#include "simd.h"

// Calls function<width, types>(arguments) for a width that is known only when the program runs.
#define C2AM_FOR_WIDTH(width, function, arguments, ...) \
  switch (width) {                                      \
    case 1:                                             \
      return function<1, __VA_ARGS__> arguments;        \
    case 2:                                             \
      return function<2, __VA_ARGS__> arguments;        \
    case 4:                                             \
      return function<4, __VA_ARGS__> arguments;        \
    case 8:                                             \
      return function<8, __VA_ARGS__> arguments;        \
    case 12:                                            \
      return function<12, __VA_ARGS__> arguments;       \
    case 16:                                            \
      return function<16, __VA_ARGS__> arguments;       \
    case 20:                                            \
      return function<20, __VA_ARGS__> arguments;       \
    case 24:                                            \
      return function<24, __VA_ARGS__> arguments;       \
    case 28:                                            \
      return function<28, __VA_ARGS__> arguments;       \
    case 32:                                            \
      return function<32, __VA_ARGS__> arguments;       \
  }

namespace c2am {

// The widths of that macro, which pad the least.
constexpr int kLargestWidth = 32;
constexpr int width_for(int64_t channels) {
  return static_cast<int>(channels <= 2 ? channels : (channels + 3) / 4 * 4);
}

// Of a vector's elements; folding halves onto each other sums them without a long chain.
template <int W>
C2AM_INLINE void halves(const Vector<W>& whole, Vector<W / 2>& low, Vector<W / 2>& high) {
  std::memcpy(&low, &whole, sizeof(low));
  std::memcpy(&high, reinterpret_cast<const char*>(&whole) + sizeof(low), sizeof(high));
}
template <int W>
C2AM_INLINE float sum_of(const Vector<W>& v) {
  if constexpr (W == 1) {
    return v[0];
  } else {
    Vector<W / 2> low, high;
    halves<W>(v, low, high);
    return sum_of<W / 2>(low + high);
  }
}
template <int W>
C2AM_INLINE float max_of(const Vector<W>& v) {
  if constexpr (W == 1) {
    return v[0];
  } else {
    Vector<W / 2> low, high;
    halves<W>(v, low, high);
    return max_of<W / 2>(low > high ? low : high);
  }
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
    // Through its own type: GCC would take a copy of 8 bytes through an integer register.
    typedef float Unaligned __attribute__((vector_size(kHead * sizeof(float)), aligned(4)));
    head = *reinterpret_cast<const Unaligned*>(from);
    tail.load(from + kHead);
  }
  template <typename Float16>
  C2AM_INLINE void load(const Float16* from) {
    c2am::load<kHead>(head, from);
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
  C2AM_INLINE void add(const Row& weight, const Row& other) {
    head += weight.head * other.head;
    tail.add(weight.tail, other.tail);
  }
  C2AM_INLINE void add(float value) {
    head += value;
    tail.add(value);
  }
  C2AM_INLINE void scale(float factor) {
    head *= factor;
    tail.scale(factor);
  }
  C2AM_INLINE float sum() const { return sum_of<kHead>(head) + tail.sum(); }
  C2AM_INLINE float max() const {
    const float top = max_of<kHead>(head);
    if constexpr (W == kHead) {
      return top;
    } else {
      const float other = tail.max();
      return other > top ? other : top;
    }
  }
  // Brings a row into the cache.
  template <typename T>
  C2AM_INLINE static void prefetch(const T* from) {
    constexpr int kLine = 64 / sizeof(T);
    for (int c = 0; c < W; c += kLine) __builtin_prefetch(from + c);
    // Rows begin at multiples of four elements, so that fewer stay within a line that was begun.
    if constexpr (W % kLine > 4) __builtin_prefetch(from + W - 1);
  }
};

template <>
struct Row<0> {
  C2AM_INLINE void clear() {}
  template <typename T>
  C2AM_INLINE void load(const T*) {}
  C2AM_INLINE void store(float*) const {}
  C2AM_INLINE void add(const Row&) {}
  C2AM_INLINE void add(float, const Row&) {}
  C2AM_INLINE void add(const Row&, const Row&) {}
  C2AM_INLINE void add(float) {}
  C2AM_INLINE void scale(float) {}
  C2AM_INLINE float sum() const { return 0; }
};

// Rows of 1 or 2 channels, side by side in one vector of 4: kNarrow<W> rows.
template <int W>
constexpr int kNarrow = W < 4 ? 4 / W : 1;

template <int W, typename Index>
C2AM_INLINE void load_narrow(Vector<4>& rows, const float* from, const Index& index) {
  if constexpr (W == 2) {
    double one, other;
    std::memcpy(&one, from + 2 * int64_t{index(0)}, sizeof(one));
    std::memcpy(&other, from + 2 * int64_t{index(1)}, sizeof(other));
    typedef double Pair __attribute__((vector_size(16)));
    const Pair pair = {one, other};
    std::memcpy(&rows, &pair, sizeof(rows));
  } else {
    rows = Vector<4>{from[index(0)], from[index(1)], from[index(2)], from[index(3)]};
  }
}

// The sum of the rows.
template <int W>
C2AM_INLINE void fold_narrow(Row<W>& sum, const Vector<4>& rows) {
  Vector<2> low, high;
  halves<4>(rows, low, high);
  low += high;
  if constexpr (W == 2) {
    sum.head = low;
  } else {
    sum.head = Vector<1>{low[0] + low[1]};
  }
}

}  // namespace c2am
