// Runs the tests of the core: all, or those named on the command line. Out-of-bounds accesses, data
// races and undefined behaviour are found by the sanitizer that this is compiled with.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>

#include "native.h"
#include "simd.h"

namespace native {
namespace {

std::map<std::string, Test>& tests() {
  static std::map<std::string, Test> all;
  return all;
}

}  // namespace

bool add(const char* name, Test test) { return tests().emplace(name, test).second; }

void same_for_all_threads(const std::string& what, int64_t count,
                          const std::function<void(int, float*)>& compute) {
  std::vector<float> first;
  for (const int threads : {1, 2, 3}) {
    std::vector<float> out(count, std::numeric_limits<float>::quiet_NaN());
    compute(threads, out.data());
    for (const float value : out) check(std::isfinite(value), what + ": not finite");
    if (threads == 1) first = out;
    const bool same = count == 0 || std::memcmp(first.data(), out.data(), count * 4) == 0;
    check(same, what + ": depends on the number of threads");
  }
}

}  // namespace native

int main(int count, char** names) {
  int failures = 0;
  for (const auto& [name, test] : native::tests()) {
    bool wanted = count == 1;
    for (int i = 1; i < count; ++i) wanted = wanted || name == names[i];
    if (!wanted) continue;
    try {
      test();
      std::printf("ok      %s (%s)\n", name.c_str(), c2am::isa_name());
    } catch (const std::exception& error) {
      ++failures;
      std::printf("FAILED  %s: %s\n", name.c_str(), error.what());
    }
  }
  return failures == 0 ? 0 : 1;
}
