#include <cstdlib>
#include <stdexcept>
#include <string>

#include "simd.h"

namespace c2am {
namespace {

constexpr const char* kNames[] = {"scalar", "avx2", "avx512"};

Isa best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2) return avx512 ? Isa::avx512 : Isa::avx2;  // with AVX2 there is F16C
#endif
  return Isa::scalar;
}

Isa choose() {
  const char* wanted = std::getenv("C2AM_ISA");
  if (wanted == nullptr || *wanted == '\0') return best();
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512}) {
    if (std::string(wanted) != kNames[static_cast<int>(isa)]) continue;
    if (isa <= best()) return isa;
    throw std::invalid_argument(std::string("C2AM_ISA=") + wanted +
                                ": this processor has no more than " +
                                kNames[static_cast<int>(best())]);
  }
  throw std::invalid_argument(std::string("C2AM_ISA=") + wanted +
                              ": expected scalar, avx2 or avx512");
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

const char* isa_name() { return kNames[static_cast<int>(isa())]; }

}  // namespace c2am
