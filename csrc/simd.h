// Vectors that the compiler maps to SSE, AVX2 or AVX-512, one clone of a function for each.
#pragma once

#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__gnu_linux__)
// The clone is chosen when the library is loaded, so that one build runs on every x86-64.
#define C2AM_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define C2AM_CLONES
#endif
#define C2AM_INLINE inline __attribute__((always_inline))

namespace c2am {

template <int Width>
struct VectorType {
  typedef float type __attribute__((vector_size(Width * sizeof(float))));
};
template <int Width>
using Vector = typename VectorType<Width>::type;

// Unaligned load and store. By reference: a wide vector passed by value has no stable ABI.
template <typename V>
C2AM_INLINE void load(V& value, const float* from) {
  std::memcpy(&value, from, sizeof(V));
}
template <typename V>
C2AM_INLINE void store(float* to, const V& value) {
  std::memcpy(to, &value, sizeof(V));
}

}  // namespace c2am
