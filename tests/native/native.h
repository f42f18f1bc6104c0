// What the tests of the core share. NATIVE_TEST(op) { ... } in <op>.cpp adds a test to the program.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace native {

using Test = void (*)();
bool add(const char* name, Test test);

inline void check(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

inline std::vector<float> uniform(int64_t count, float low, float high, unsigned seed = 0) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> value(low, high);
  std::vector<float> values(count);
  for (float& v : values) v = value(engine);
  return values;
}

// An image of `count` bytes: a slow ramp, so that pixels share lattice vertices, with noise on it.
inline std::vector<uint8_t> bytes(int64_t count) {
  std::mt19937 engine(0);
  std::vector<uint8_t> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<uint8_t>(i / 5 + engine() % 7);
  return values;
}

// Calls compute(threads, out) for several numbers of threads, on outputs of `count` values filled
// with NaN, and checks that all are finite and have the same bits.
void same_for_all_threads(const std::string& what, int64_t count,
                          const std::function<void(int threads, float* out)>& compute);

}  // namespace native

#define NATIVE_TEST(name)                                    \
  static void name();                                        \
  static const bool name##_added = native::add(#name, name); \
  static void name()
