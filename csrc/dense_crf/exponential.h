#pragma once

#include <cstdint>

#include "simd.h"

namespace c2am {

// x = exp(x) for x <= 0, and for less than -87, where float32 ends, that of -87: 2^n times a
// polynomial on the rest, of the least largest relative error (9.2e-8) among those of 1 at 0.
template <int N>
C2AM_INLINE void exponential(Vector<N>& x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  x = x > -87.0f ? x : Vector<N>{} - 87.0f;
  const Vector<N> shifted = x * kLog2E + kRound;  // its low bits are those of n
  const Vector<N> n = shifted - kRound;
  const Vector<N> r = (x - n * kLn2High) - n * kLn2Low;
  Vector<N> p = 8.290262893e-3f * r + 4.189815745e-2f;
  p = p * r + 1.666763872e-1f;
  p = p * r + 4.999914765e-1f;
  p = p * r + 9.999997020e-1f;
  p = p * r + 1.0f;
  Vector<N, uint32_t> bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits + 127) << 23;
  Vector<N> power;
  std::memcpy(&power, &bits, sizeof(power));
  x = p * power;
}

}  // namespace c2am
