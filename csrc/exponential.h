// exp(x) and exp(x) - 1 of a vector, to the last digit or two.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

namespace c2am {

// ln 2 in two parts, of which n times the first is exact; adding and taking away `round` rounds to
// a whole number n, which is then in the low bits; terms of the Taylor series.
template <typename T>
struct ExponentialOf;
template <>
struct ExponentialOf<float> {
  using Bits = uint32_t;
  static constexpr int terms = 7, mantissa = 23, bias = 127;
  static constexpr float round = 0x1.8p23f, least = -87.0f;
  static constexpr float ln2_high = 0x1.63p-1f, ln2_low = -0x1.bd0106p-13f;
};
template <>
struct ExponentialOf<double> {
  using Bits = uint64_t;
  static constexpr int terms = 13, mantissa = 52, bias = 1023;
  static constexpr double round = 0x1.8p52, least = -708.0;
  static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
};

// For x <= 0: minus_one = exp(x) - 1 and all = exp(x), both 2^n exp(r) with |r| <= ln(2) / 2. Below
// `least` x counts as that, where exp(x) - 1 is -1.
template <typename T, typename V>
C2AM_INLINE void exponential(const V& x, V& minus_one, V& all) {
  using C = ExponentialOf<T>;
  constexpr int width = sizeof(V) / sizeof(T);
  const V least = V{} + C::least;
  const V clamped = x > least ? x : least;
  const V shifted = clamped * T(1.4426950408889634074) + C::round;
  const V n = shifted - C::round;
  const V r = (clamped - n * C::ln2_high) - n * C::ln2_low;
  V series = V{} + T{1};  // of (exp(r) - 1) / r = 1 + r / 2 (1 + r / 3 (1 + ...))
  for (int k = C::terms; k >= 2; --k) series = series * (r * (T{1} / static_cast<T>(k))) + T{1};
  Vector<width, typename C::Bits> bits;
  std::memcpy(&bits, &shifted, sizeof(V));
  bits = (bits + C::bias) << C::mantissa;
  V power;  // 2^n
  std::memcpy(&power, &bits, sizeof(V));
  const V scaled = power * (series * r);
  minus_one = scaled + (power - T{1});
  all = scaled + power;
}

}  // namespace c2am
