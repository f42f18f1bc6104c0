#include "dense_crf/loops.h"

#include <type_traits>

#include "dense_crf/row.h"
#include "simd.h"

namespace c2am::loops {
namespace {

using Entry = PermutohedralLattice::Entry;
using Group = PermutohedralLattice::Group;
constexpr int kGroup = PermutohedralLattice::kGroup;
constexpr int kBlurAhead = PermutohedralLattice::kPadding / 2;
constexpr int kAhead = PermutohedralLattice::kPadding;  // entries, of the prefetching

// The weights of kNarrow<W> entries or corners, each for all channels of its row.
template <int W>
C2AM_INLINE void weights_of(Vector<4>& weights, const Entry* entries) {
  Vector<4> first;
  std::memcpy(&first, entries, sizeof(first));  // point, weight, point, weight
  if constexpr (W == 2) {
    weights = __builtin_shufflevector(first, first, 1, 1, 3, 3);
  } else {
    Vector<4> second;
    std::memcpy(&second, entries + 2, sizeof(second));
    weights = __builtin_shufflevector(first, second, 1, 3, 5, 7);
  }
}

// The sum over a group.
template <int W>
C2AM_INLINE void splat_group(Row<W>& sum, const Entry* entries, const float* from) {
  if constexpr (W < 4) {  // which need no prefetching either
    Vector<4> rows, weights, wide = {};
    if (W == 1 && from == nullptr) {
      weights_of<W>(wide, entries);
      return fold_narrow(sum, wide);
    }
    for (int i = 0; i < kGroup; i += kNarrow<W>) {
      load_narrow<W>(rows, from, [&](int k) { return entries[i + k].point; });
      weights_of<W>(weights, entries + i);
      wide += weights * rows;
    }
    fold_narrow(sum, wide);
  } else {
    Row<W> value;
    sum.clear();
    for (int i = 0; i < kGroup; ++i) {
      Row<W>::prefetch(from + int64_t{entries[i + kAhead].point} * W);
      value.load(from + int64_t{entries[i].point} * W);
      sum.add(entries[i].weight, value);
    }
  }
}

// Without a branch at the end of a vertex, which could not be foreseen: every group stores the sum
// so far.
template <int W, typename T>
C2AM_INLINE void splat_rows(const Group* groups, const Entry* entries, const float* from, T* values,
                            int64_t first, int64_t last) {
  Row<W> sum, so_far;
  so_far.clear();
  for (int64_t g = first; g < last; ++g) {
    splat_group(sum, entries + g * kGroup, from);
    sum.add(groups[g].carry, so_far);
    sum.store(values + int64_t{groups[g].vertex} * W);
    so_far = sum;
  }
}

template <int W, typename T>
C2AM_INLINE void blur_rows(const int32_t* neighbours, const T* from, T* to, int64_t first,
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

template <int Bytes, typename T>
C2AM_INLINE void splat_body(int width, const Group* groups, const Entry* entries, const float* from,
                            T* values, int64_t first, int64_t last) {
  using S = Stored<Bytes, T>;
  C2AM_FOR_WIDTH(width, splat_rows, S, (groups, entries, from, stored<Bytes>(values), first, last))
}

template <int Bytes, typename T>
C2AM_INLINE void blur_body(int width, const int32_t* neighbours, const T* from, T* to,
                           int64_t first, int64_t last) {
  using S = Stored<Bytes, T>;
  C2AM_FOR_WIDTH(width, blur_rows, S,
                 (neighbours, stored<Bytes>(from), stored<Bytes>(to), first, last))
}

template <int Bytes, typename T>
C2AM_INLINE void slice_body(int width, int corners, const int32_t* corner, const float* weight,
                            const float* scale, const T* values, float* to, int64_t first,
                            int64_t last) {
  using S = Stored<Bytes, T>;
  const S* from = stored<Bytes>(values);
  if (corners == 6) {  // the bilateral kernel's, unrolled
    C2AM_FOR_WIDTH(width, slice_rows, S, (6, corner, weight, scale, from, to, first, last))
  } else {
    C2AM_FOR_WIDTH(width, slice_rows, S, (corners, corner, weight, scale, from, to, first, last))
  }
}

}  // namespace

#define C2AM_LATTICE_LOOPS(T)                                                                    \
  C2AM_DISPATCH_BYTES(splat,                                                                     \
                      (int width, const Group* groups, const Entry* entries, const float* from,  \
                       T* values, int64_t first, int64_t last),                                  \
                      (width, groups, entries, from, values, first, last))                       \
  C2AM_DISPATCH_BYTES(                                                                           \
      blur,                                                                                      \
      (int width, const int32_t* neighbours, const T* from, T* to, int64_t first, int64_t last), \
      (width, neighbours, from, to, first, last))                                                \
  C2AM_DISPATCH_BYTES(                                                                           \
      slice,                                                                                     \
      (int width, int corners, const int32_t* corner, const float* weight, const float* scale,   \
       const T* values, float* to, int64_t first, int64_t last),                                 \
      (width, corners, corner, weight, scale, values, to, first, last))

C2AM_LATTICE_LOOPS(float)
C2AM_LATTICE_LOOPS(Float16)

}  // namespace c2am::loops
