// Element types of tensors: float, double, and two half types that are widened to float.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "simd.h"

namespace c2am {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// The type in which values of type E are computed.
template <typename E>
struct WideType {
  using type = float;
};
template <>
struct WideType<double> {
  using type = double;
};
template <typename E>
using Wide = typename WideType<E>::type;

template <typename To, typename From>
C2AM_INLINE void copy_bits(To& to, const From& from) {
  static_assert(sizeof(To) == sizeof(From), "of one size");
  std::memcpy(&to, &from, sizeof(To));
}

// For one value as for a vector of them (F of floats, U of uint32_t).
template <typename F, typename U>
C2AM_INLINE void from_bits(F& value, const U& bits, BFloat16) {
  copy_bits(value, bits << 16);
}

// The exponent is 112 less than that of a float, hence the product, which also normalises
// subnormal numbers; infinity and NaN keep the highest exponent.
template <typename F, typename U>
C2AM_INLINE void from_bits(F& value, const U& bits, Half) {
  const U magnitude = (bits & 0x7fffu) << 13;
  U scaled;
  copy_bits(value, magnitude);
  copy_bits(scaled, value * 0x1p112f);
  scaled = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : scaled;
  copy_bits(value, scaled | (bits & 0x8000u) << 16);
}

C2AM_INLINE float widen(float value) { return value; }
C2AM_INLINE double widen(double value) { return value; }
template <typename E>
C2AM_INLINE float widen(E value) {
  float wide;
  from_bits(wide, uint32_t{value.bits}, value);
  return wide;
}

C2AM_INLINE void narrow(float value, float& to) { to = value; }
C2AM_INLINE void narrow(double value, double& to) { to = value; }

// Rounds to nearest, ties to even, as all of these; of finite values and infinity.
C2AM_INLINE void narrow(float value, BFloat16& to) {
  uint32_t bits;
  copy_bits(bits, value);
  to.bits = static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// Below 2^-14 the sum with 0.5, whose last bit is worth 2^-24, has the subnormal number in its
// last bits.
C2AM_INLINE void narrow(float value, Half& to) {
  uint32_t bits, subnormal;
  copy_bits(bits, value);
  copy_bits(subnormal, std::fabs(value) + 0.5f);
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const uint32_t rounded = magnitude < 0x38800000u   ? subnormal - 0x3f000000u
                           : magnitude < 0x47800000u ? normal
                                                     : 0x7c00u;
  to.bits = static_cast<uint16_t>(rounded | (bits >> 16 & 0x8000u));
}

// Loads elements, widened to the type of the vector's lanes.
template <typename V>
C2AM_INLINE void load_wide(V& value, const float* from) {
  load(value, from);
}
template <typename V>
C2AM_INLINE void load_wide(V& value, const double* from) {
  load(value, from);
}
template <typename V, typename E>
C2AM_INLINE void load_wide(V& value, const E* from) {
  constexpr int width = sizeof(V) / sizeof(float);
  Vector<width, uint16_t> bits;
  std::memcpy(&bits, from, sizeof(bits));
  from_bits(value, __builtin_convertvector(bits, Vector<width, uint32_t>), E{});
}

}  // namespace c2am
