#include "buffer.h"

#include <string>
#include <thread>
#include <vector>

#include "native.h"

namespace {

constexpr int64_t kSize = 24'000'000;  // more than any other test's

const float* address_of(int64_t size) { return c2am::Buffer<float>(size).data(); }

}  // namespace

NATIVE_TEST(buffer) {
  const float* kept = address_of(kSize);
  native::check(address_of(kSize) == kept, "a block is taken again");
  native::check(address_of(kSize * 3 / 4) == kept, "and for less");
  native::check(address_of(kSize / 2) != kept, "but not for much less");
  native::check(address_of(kSize) == kept, "as large as it was");
  {
    const c2am::Buffer<float> one(kSize), other(kSize);
    native::check(one.data() != other.data(), "one at a time");
  }

  std::vector<std::thread> threads;
  std::vector<int64_t> wrong(3);
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([t, &wrong] {
      for (int64_t i = 0; i < 50; ++i) {
        c2am::Buffer<int64_t> mine(30'000 + 500 * i, t);
        for (const int64_t value : mine) wrong[t] += value != t;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int64_t count : wrong) native::check(count == 0, "a block of another thread");
}
