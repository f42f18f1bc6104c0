#include "dense_crf/loops.h"

#include <type_traits>

#include "dense_crf/row.h"
#include "simd.h"

namespace c2am::loops {
namespace {

using Span = PermutohedralLattice::Span;
constexpr int kAhead = PermutohedralLattice::kPadding;  // corners, of the prefetching
constexpr int kBlurAhead = 24;                          // vertices
constexpr int64_t kPointsAhead = 96;                    // of slicing
static_assert(kBlurAhead <= PermutohedralLattice::kPadding, "entries are valid");

template <int W, typename T>
C2AM_INLINE void splat_rows(int corners, const int32_t* corner, const float* weight,
                            const Span* spans, int64_t count, const T* from, const T* scale,
                            T* values) {
  for (int64_t s = 0; s < count; ++s) {
    // Spans are too short for the processor to foresee the next one, which is fetched meanwhile.
    const Span span = spans[s], next = spans[s + 1 < count ? s + 1 : s];
    const int64_t step = next.first - span.first;
    for (int64_t n = span.first; n < span.last; ++n) {
      const int32_t* own_corner = corner + n * corners;
      const float* own_weight = weight + n * corners;
      __builtin_prefetch(own_corner + step * corners);
      __builtin_prefetch(own_weight + step * corners);
      if (from != nullptr) Row<W>::prefetch(from + (n + step) * W);
      if (scale != nullptr) __builtin_prefetch(scale + n + step);
      Row<W> value, sum;
      if (W == 1 && from == nullptr) {
        value.clear();
        value.add(1);
      } else {
        value.load(from + n * W);
      }
      if (scale != nullptr) value.scale(scale[n]);
      for (int k = 0; k < corners; ++k) {
        if constexpr (W > 4) Row<W>::prefetch(values + int64_t{own_corner[k + kAhead]} * W);
        float* at = values + int64_t{own_corner[k]} * W;
        sum.load(at);
        sum.add(own_weight[k], value);
        sum.store(at);
      }
    }
  }
}

// What neighbours along a chain give each other: nothing where the second one begins a chain.
template <int W>
struct Shares {
  constexpr Shares() {
    for (int c = 0; c < W; ++c) of[0][c] = 0.5f;
  }
  float of[2][W] = {};  // of an entry that begins no chain, of one that does
};

template <int W, typename T>
C2AM_INLINE void blur_rows(const uint32_t* chains, T* values) {
  static constexpr Shares<W> shares;
  Row<W> self, after, share;
  Row<W> sum;  // of self and what the vertex before gives, then also what the one after gives
  uint64_t at = *chains / 2;
  self.load(values + at * W);
  sum = self;
  while (at != 0) {
    if constexpr (W > 4) Row<W>::prefetch(values + int64_t{chains[kBlurAhead] / 2} * W);
    const uint64_t next = *++chains;
    share.load(shares.of[next % 2]);
    after.load(values + next / 2 * W);
    sum.add(share, after);
    sum.store(values + at * W);
    sum = after;
    sum.add(share, self);
    self = after;
    at = next / 2;
  }
}

template <int W, typename T>
C2AM_INLINE void slice_rows(int corners, const int32_t* corner, const float* weight,
                            const float* scale, const T* values, float* to, int64_t first,
                            int64_t last) {
  corner += first * corners;
  weight += first * corners;
  for (int64_t n = first; n < last; ++n, to += W, corner += corners, weight += corners) {
    // The rows' gathers keep the processor from fetching these streams by itself.
    __builtin_prefetch(corner + kPointsAhead * corners);
    __builtin_prefetch(weight + kPointsAhead * corners);
    Row<W> sum, value;
    sum.clear();
    int k = 0;
    if constexpr (W == 2 && std::is_same<T, float>::value) {
      Vector<4> wide = {}, rows;
      for (; k + 2 <= corners; k += 2) {
        Row<2> weights;
        load_narrow<2>(rows, values, [&](int i) { return corner[k + i]; });
        weights.load(weight + k);
        wide += __builtin_shufflevector(weights.head, weights.head, 0, 0, 1, 1) * rows;
      }
      fold_narrow(sum, wide);
    }
    for (; k < corners; ++k) {
      if constexpr (W > 4) Row<W>::prefetch(values + int64_t{corner[k + kAhead]} * W);
      value.load(values + int64_t{corner[k]} * W);
      sum.add(weight[k], value);
    }
    value.load(to);
    value.add(scale[n - first], sum);
    value.store(to);
  }
}

// How to store values of type T with vectors of so many bytes.
template <int Bytes, typename T>
struct StoredType {
  using type = T;
};
#if defined(__x86_64__)
template <>
struct StoredType<64, Float16> {
  using type = FastFloat16;
};
template <>
struct StoredType<32, Float16> {
  using type = FastFloat16;
};
#endif
template <int Bytes, typename T>
using Stored = typename StoredType<Bytes, T>::type;
template <int Bytes, typename T>
C2AM_INLINE auto* stored(T* values) {
  return reinterpret_cast<Stored<Bytes, T>*>(values);
}
template <int Bytes, typename T>
C2AM_INLINE auto* stored(const T* values) {
  return reinterpret_cast<const Stored<Bytes, T>*>(values);
}

template <int Bytes>
C2AM_INLINE void splat_body(int width, int corners, const int32_t* corner, const float* weight,
                            const Span* spans, int64_t count, const float* from, const float* scale,
                            float* values) {
  if (corners == 6) {  // the bilateral kernel's, unrolled
    C2AM_FOR_WIDTH(width, splat_rows, (6, corner, weight, spans, count, from, scale, values), float)
  } else {
    C2AM_FOR_WIDTH(width, splat_rows, (corners, corner, weight, spans, count, from, scale, values),
                   float)
  }
}

// A function of its own, which begins with a cache line, so that its loop begins within one: where
// more than 14 of its short instructions lay in one line, an AMD processor took 1.3 to 1.7 times as
// long (GCC 12).
C2AM_INLINE void blur_pairs_body(const uint32_t* chains, float* values) {
  blur_rows<2>(chains, values);
}
C2AM_DISPATCH(blur_pairs, (const uint32_t* chains, float* values), (chains, values))

template <int Bytes>
C2AM_INLINE void blur_body(int width, const uint32_t* chains, float* values) {
  if (width == 2) return blur_pairs(chains, values);
  C2AM_FOR_WIDTH(width, blur_rows, (chains, values), float)
}

template <int Bytes>
C2AM_INLINE void round_values_body(const float* from, Float16* to, int64_t n) {
  for (; n >= 16; n -= 16, from += 16, to += 16) {
    Vector<16> value;
    load(value, from);
    store<16>(stored<Bytes>(to), value);
  }
  for (; n > 0; --n, ++from, ++to) store<1>(stored<Bytes>(to), Vector<1>{*from});
}

template <int Bytes, typename T>
C2AM_INLINE void slice_body(int width, int corners, const int32_t* corner, const float* weight,
                            const float* scale, const T* values, float* to, int64_t first,
                            int64_t last) {
  using S = Stored<Bytes, T>;
  const S* from = stored<Bytes>(values);
  if (corners == 6) {  // the bilateral kernel's, unrolled
    C2AM_FOR_WIDTH(width, slice_rows, (6, corner, weight, scale, from, to, first, last), S)
  } else {
    C2AM_FOR_WIDTH(width, slice_rows, (corners, corner, weight, scale, from, to, first, last), S)
  }
}

}  // namespace

#define C2AM_SLICE(T)                                                                          \
  C2AM_DISPATCH_BYTES(                                                                         \
      slice,                                                                                   \
      (int width, int corners, const int32_t* corner, const float* weight, const float* scale, \
       const T* values, float* to, int64_t first, int64_t last),                               \
      (width, corners, corner, weight, scale, values, to, first, last))

C2AM_DISPATCH_BYTES(splat,
                    (int width, int corners, const int32_t* corner, const float* weight,
                     const Span* spans, int64_t count, const float* from, const float* scale,
                     float* values),
                    (width, corners, corner, weight, spans, count, from, scale, values))
C2AM_DISPATCH_BYTES(blur, (int width, const uint32_t* chains, float* values),
                    (width, chains, values))
C2AM_DISPATCH_BYTES(round_values, (const float* from, Float16* to, int64_t n), (from, to, n))
C2AM_SLICE(float)
C2AM_SLICE(Float16)

}  // namespace c2am::loops
