#pragma once

#include "simd.h"

namespace c2am {

// x = exp(x) for x <= 0, with 0 below -87, where float32 ends: 2^n times a polynomial on the rest.
template <int N>
C2AM_INLINE void exponential(Vector<N>& x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const auto in_range = x > -87.0f;
  x = in_range ? x : Vector<N>{};
  const Vector<N> n = (x * kLog2E + kRound) - kRound;
  const Vector<N> r = (x - n * kLn2High) - n * kLn2Low;
  Vector<N> p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  using Bits = decltype(in_range);
  const Bits exponent = (__builtin_convertvector(n, Bits) + 127) << 23;
  Vector<N> power;
  std::memcpy(&power, &exponent, sizeof(power));
  x = in_range ? p * power : Vector<N>{};
}

}  // namespace c2am
