// Vectors of floats stored in 16 bits, as float16 (IEEE 754 binary16). Overflow is not handled.
#pragma once

#include <cstdint>

#include "simd.h"

namespace c2am {

struct Float16 {
  uint16_t bits;
};
// The same, converted by the processor's instructions for it, which come with AVX2.
struct FastFloat16 {
  uint16_t bits;
};

// Without those.
template <int W>
C2AM_INLINE void load(Vector<W>& value, const Float16* from) {
  using Bits = Vector<W, uint32_t>;
  Vector<W, uint16_t> narrow;
  std::memcpy(&narrow, from, sizeof(narrow));
  const Bits wide = __builtin_convertvector(narrow, Bits);
  const Bits magnitude = (wide & 0x7fff) << 13;
  std::memcpy(&value, &magnitude, sizeof(value));
  value *= 0x1p112f;  // the difference of the exponents
  Bits bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits |= (wide & 0x8000) << 16;
  std::memcpy(&value, &bits, sizeof(value));
}

template <int W>
C2AM_INLINE void store(Float16* to, const Vector<W>& value) {
  using Bits = Vector<W, int32_t>;
  constexpr int32_t kNormal = (127 - 14) << 23, kHalf = 126 << 23;  // 2^-14 and 1/2 as float32
  Bits bits, subnormal;
  std::memcpy(&bits, &value, sizeof(bits));
  Bits magnitude = bits & 0x7fffffff;
  const Bits is_normal = magnitude >= kNormal;
  Vector<W> shifted;  // by as much as leaves of a subnormal number what float16 has of it
  std::memcpy(&shifted, &magnitude, sizeof(shifted));
  shifted += 0.5f;
  std::memcpy(&subnormal, &shifted, sizeof(subnormal));
  subnormal -= kHalf;
  // To the nearest, or to the even one of two.
  magnitude += 0xfff + ((magnitude >> 13) & 1) - (112 << 23);
  magnitude = ((magnitude >> 13) & is_normal) | (subnormal & ~is_normal);
  const Bits result = magnitude | ((bits >> 16) & 0x8000);
  const auto narrow = __builtin_convertvector(result, Vector<W, uint16_t>);
  std::memcpy(to, &narrow, sizeof(narrow));
}

#if defined(__x86_64__)
// In assembly, since a function that is compiled for several instruction sets may not use the
// intrinsics of one. Fewer than 8 values take a part of a register.
template <int W>
C2AM_INLINE void load(Vector<W>& value, const FastFloat16* from) {
  if constexpr (W == 16) {  // more than AVX2 has registers for
    Vector<W / 2> low, high;
    load<W / 2>(low, from);
    load<W / 2>(high, from + W / 2);
    value =
        __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  } else if constexpr (W == 8) {
    Vector<W, uint16_t> narrow;
    std::memcpy(&narrow, from, sizeof(narrow));
    asm("vcvtph2ps %1, %0" : "=v"(value) : "v"(narrow));
  } else {
    uint64_t bits = 0;
    std::memcpy(&bits, from, W * sizeof(uint16_t));
    const Vector<2, uint64_t> narrow = {bits, 0};
    Vector<4> wide;
    asm("vcvtph2ps %1, %0" : "=v"(wide) : "v"(narrow));
    if constexpr (W == 4) {
      value = wide;
    } else {
      for (int i = 0; i < W; ++i) value[i] = wide[i];
    }
  }
}

template <int W>
C2AM_INLINE void store(FastFloat16* to, const Vector<W>& value) {
  if constexpr (W == 16) {
    const Vector<8> low = __builtin_shufflevector(value, value, 0, 1, 2, 3, 4, 5, 6, 7);
    const Vector<8> high = __builtin_shufflevector(value, value, 8, 9, 10, 11, 12, 13, 14, 15);
    store<W / 2>(to, low);
    store<W / 2>(to + W / 2, high);
  } else if constexpr (W == 8) {
    Vector<W, uint16_t> narrow;
    asm("vcvtps2ph $0, %1, %0" : "=v"(narrow) : "v"(value));
    std::memcpy(to, &narrow, sizeof(narrow));
  } else {
    Vector<4> wide = {};
    if constexpr (W == 4) {
      wide = value;
    } else {
      for (int i = 0; i < W; ++i) wide[i] = value[i];
    }
    Vector<2, uint64_t> narrow;
    asm("vcvtps2ph $0, %1, %0" : "=v"(narrow) : "v"(wide));
    const uint64_t bits = narrow[0];
    std::memcpy(to, &bits, W * sizeof(uint16_t));
  }
}
#endif

}  // namespace c2am
