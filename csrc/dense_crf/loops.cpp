#include "dense_crf/loops.h"

#include "dense_crf/row.h"
#include "simd.h"

namespace c2am::loops {
namespace {

using Entry = PermutohedralLattice::Entry;
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

// The sum over the entries first .. last - 1 of rows of less than 4 channels.
template <int W>
C2AM_INLINE void splat_narrow(Row<W>& sum, const Entry* entries, int32_t first, int32_t last,
                              const float* from) {
  Vector<4> wide = {}, rows, weights;
  for (; first + kNarrow<W> <= last; first += kNarrow<W>) {
    for (int i = 0; i < kNarrow<W>; ++i) {
      __builtin_prefetch(from + int64_t{entries[first + kAhead + i].point} * W);
    }
    load_narrow<W>(rows, from, [&](int i) { return entries[first + i].point; });
    weights_of<W>(weights, entries + first);
    wide += weights * rows;
  }
  fold_narrow(sum, wide);
  for (Row<W> value; first < last; ++first) {
    value.load(from + int64_t{entries[first].point} * W);
    sum.add(entries[first].weight, value);
  }
}

template <int W>
C2AM_INLINE void splat_wide(Row<W>& sum, const Entry* entries, int32_t first, int32_t last,
                            const float* from) {
  Row<W> odd, value;  // a second sum, since one would wait for itself
  sum.clear();
  odd.clear();
  for (; first + 1 < last; first += 2) {
    Row<W>::prefetch(from + int64_t{entries[first + kAhead].point} * W);
    Row<W>::prefetch(from + int64_t{entries[first + kAhead + 1].point} * W);
    value.load(from + int64_t{entries[first].point} * W);
    sum.add(entries[first].weight, value);
    value.load(from + int64_t{entries[first + 1].point} * W);
    odd.add(entries[first + 1].weight, value);
  }
  if (first < last) {
    value.load(from + int64_t{entries[first].point} * W);
    sum.add(entries[first].weight, value);
  }
  sum.add(odd);
}

template <int W>
C2AM_INLINE void splat_rows(const int32_t* start, const Entry* entries, const float* from,
                            float* values, int64_t first, int64_t last) {
  for (int64_t v = first; v < last; ++v) {
    Row<W> sum;
    if constexpr (W < 4) {
      splat_narrow(sum, entries, start[v], start[v + 1], from);
    } else {
      splat_wide(sum, entries, start[v], start[v + 1], from);
    }
    sum.store(values + v * W);
  }
}

template <int W>
C2AM_INLINE void blur_rows(const int32_t* neighbours, const float* from, float* to, int64_t first,
                           int64_t last) {
  for (int64_t v = first; v < last; ++v) {
    Row<W> self, one, other;
    Row<W>::prefetch(from + int64_t{neighbours[2 * (v + kBlurAhead)]} * W);
    Row<W>::prefetch(from + int64_t{neighbours[2 * (v + kBlurAhead) + 1]} * W);
    self.load(from + v * W);
    one.load(from + int64_t{neighbours[2 * v]} * W);
    other.load(from + int64_t{neighbours[2 * v + 1]} * W);
    one.add(other);
    self.add(0.5f, one);
    self.store(to + v * W);
  }
}

template <int W>
C2AM_INLINE void slice_rows(int corners, const int32_t* corner, const float* weight,
                            const float* values, float* to, int64_t first, int64_t last) {
  corner += first * corners;
  weight += first * corners;
  for (int64_t n = first; n < last; ++n, to += W, corner += corners, weight += corners) {
    Row<W> sum, value;
    sum.load(to);
    int k = 0;
    if constexpr (W == 2) {
      Vector<4> wide = {}, rows;
      for (; k + 2 <= corners; k += 2) {
        load_narrow<2>(rows, values, [&](int i) { return corner[k + i]; });
        wide += Vector<4>{weight[k], weight[k], weight[k + 1], weight[k + 1]} * rows;
      }
      fold_narrow(value, wide);
      sum.add(value);
    }
    for (; k < corners; ++k) {
      Row<W>::prefetch(values + int64_t{corner[k + kAhead]} * W);
      value.load(values + int64_t{corner[k]} * W);
      sum.add(weight[k], value);
    }
    sum.store(to);
  }
}

C2AM_INLINE void splat_body(int width, const int32_t* start, const Entry* entries,
                            const float* from, float* values, int64_t first, int64_t last){
    C2AM_FOR_WIDTH(width, splat_rows, (start, entries, from, values, first, last))}

C2AM_INLINE void blur_body(int width, const int32_t* neighbours, const float* from, float* to,
                           int64_t first, int64_t last){
    C2AM_FOR_WIDTH(width, blur_rows, (neighbours, from, to, first, last))}

C2AM_INLINE void slice_body(int width, int corners, const int32_t* corner, const float* weight,
                            const float* values, float* to, int64_t first, int64_t last) {
  if (corners == 6) {  // the bilateral kernel's, unrolled
    C2AM_FOR_WIDTH(width, slice_rows, (6, corner, weight, values, to, first, last))
  } else {
    C2AM_FOR_WIDTH(width, slice_rows, (corners, corner, weight, values, to, first, last))
  }
}

}  // namespace

C2AM_DISPATCH(splat,
              (int width, const int32_t* start, const Entry* entries, const float* from,
               float* values, int64_t first, int64_t last),
              (width, start, entries, from, values, first, last))
C2AM_DISPATCH(blur,
              (int width, const int32_t* neighbours, const float* from, float* to, int64_t first,
               int64_t last),
              (width, neighbours, from, to, first, last))
C2AM_DISPATCH(slice,
              (int width, int corners, const int32_t* corner, const float* weight,
               const float* values, float* to, int64_t first, int64_t last),
              (width, corners, corner, weight, values, to, first, last))

}  // namespace c2am::loops
