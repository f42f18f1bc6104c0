#include "dense_crf/loops.h"

#include <type_traits>

#include "dense_crf/row.h"
#include "simd.h"

namespace c2am::loops {
namespace {

using Span = PermutohedralLattice::Span;
constexpr int kBlurAhead = PermutohedralLattice::kPadding / 2;
constexpr int kAhead = PermutohedralLattice::kPadding;  // corners, of the prefetching

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

template <int W, typename From, typename To>
C2AM_INLINE void blur_rows(const int32_t* neighbours, const From* from, To* to, int64_t first,
                           int64_t last) {
  for (int64_t v = first; v < last; ++v) {
    Row<W> self, one, other;
    if constexpr (W > 4) {
      Row<W>::prefetch(from + int64_t{neighbours[2 * (v + kBlurAhead)]} * W);
      Row<W>::prefetch(from + int64_t{neighbours[2 * (v + kBlurAhead) + 1]} * W);
    }
    self.load(from + v * W);
    one.load(from + int64_t{neighbours[2 * v]} * W);
    other.load(from + int64_t{neighbours[2 * v + 1]} * W);
    one.add(other);
    self.add(0.5f, one);
    self.store(to + v * W);
  }
}

template <int W, typename T>
C2AM_INLINE void slice_rows(int corners, const int32_t* corner, const float* weight,
                            const float* scale, const T* values, float* to, int64_t first,
                            int64_t last) {
  corner += first * corners;
  weight += first * corners;
  for (int64_t n = first; n < last; ++n, to += W, corner += corners, weight += corners) {
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

template <int Bytes, typename From, typename To>
C2AM_INLINE void blur_body(int width, const int32_t* neighbours, const From* from, To* to,
                           int64_t first, int64_t last) {
  C2AM_FOR_WIDTH(width, blur_rows,
                 (neighbours, stored<Bytes>(from), stored<Bytes>(to), first, last),
                 Stored<Bytes, From>, Stored<Bytes, To>)
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

#define C2AM_BLUR(From, To)                                                            \
  C2AM_DISPATCH_BYTES(blur,                                                            \
                      (int width, const int32_t* neighbours, const From* from, To* to, \
                       int64_t first, int64_t last),                                   \
                      (width, neighbours, from, to, first, last))
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
C2AM_BLUR(float, float)
C2AM_BLUR(float, Float16)
C2AM_BLUR(Float16, Float16)
C2AM_SLICE(float)
C2AM_SLICE(Float16)

}  // namespace c2am::loops
