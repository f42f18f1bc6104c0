// Vectors that the compiler maps to the instructions at hand, and the choice among these when the
// program runs, so that one build runs on every x86-64.
#pragma once

#include <cstring>
#include <type_traits>

#define C2AM_INLINE inline __attribute__((always_inline))

namespace c2am {

enum class Isa { scalar, avx2, avx512 };

// The best instruction set of this processor, or the one named by the environment variable
// C2AM_ISA (scalar, avx2, avx512). Throws std::invalid_argument if that is unknown or not here.
Isa isa();
const char* isa_name();

}  // namespace c2am

// C2AM_DISPATCH(name, (parameters), (arguments)) defines `void name(parameters)`: the function
// `name_body`, which must be C2AM_INLINE, compiled once for each instruction set.
// C2AM_DISPATCH_BYTES: the same of a template `name_body<Bytes>`, on the size of a vector register.
// Comparisons of wider vectors would be taken apart into those of single numbers.
#define C2AM_DISPATCH(name, parameters, arguments) \
  C2AM_DISPATCH_TO(name, parameters, arguments, name##_body, name##_body, name##_body)
#define C2AM_DISPATCH_BYTES(name, parameters, arguments) \
  C2AM_DISPATCH_TO(name, parameters, arguments, name##_body<64>, name##_body<32>, name##_body<16>)

#if defined(__x86_64__)
// Aligned, and never a part of another: the place of a function's loops in the cache lines does not
// depend on what is around it.
#define C2AM_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"), aligned(64), noinline))
#define C2AM_AVX2 __attribute__((target("avx2,fma,f16c"), aligned(64), noinline))
#define C2AM_DISPATCH_TO(name, parameters, arguments, body64, body32, body16) \
  C2AM_AVX512 static void name##_avx512 parameters { body64 arguments; }      \
  C2AM_AVX2 static void name##_avx2 parameters { body32 arguments; }          \
  static void name##_scalar parameters { body16 arguments; }                  \
  void name parameters {                                                      \
    switch (c2am::isa()) {                                                    \
      case c2am::Isa::avx512:                                                 \
        return name##_avx512 arguments;                                       \
      case c2am::Isa::avx2:                                                   \
        return name##_avx2 arguments;                                         \
      case c2am::Isa::scalar:                                                 \
        return name##_scalar arguments;                                       \
    }                                                                         \
  }
#else
#define C2AM_DISPATCH_TO(name, parameters, arguments, body64, body32, body16) \
  void name parameters { body16 arguments; }
#endif

namespace c2am {

template <int Width, typename T = float>
struct VectorType {
  typedef T type __attribute__((vector_size(Width * sizeof(T))));
};
template <int Width, typename T = float>
using Vector = typename VectorType<Width, T>::type;

// Unaligned load and store. By reference: a wide vector passed by value has no stable ABI.
template <typename V, typename T>
C2AM_INLINE void load(V& value, const T* from) {
  static_assert(std::is_same<typename std::decay<decltype(value[0])>::type, T>::value, "");
  std::memcpy(&value, from, sizeof(V));
}
template <typename V, typename T>
C2AM_INLINE void store(T* to, const V& value) {
  static_assert(std::is_same<typename std::decay<decltype(value[0])>::type, T>::value, "");
  std::memcpy(to, &value, sizeof(V));
}

}  // namespace c2am
