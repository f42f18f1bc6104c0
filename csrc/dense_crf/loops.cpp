#include "dense_crf/loops.h"

#include "dense_crf/row.h"
#include "simd.h"

namespace c2am::loops {
namespace {

using Entry = PermutohedralLattice::Entry;

template <int W>
C2AM_INLINE void splat_rows(const int32_t* start, const Entry* entries, const float* from,
                            float* values, int64_t first, int64_t last) {
  for (int64_t v = first; v < last; ++v) {
    Row<W> sum, value;
    sum.clear();
    for (int32_t e = start[v]; e < start[v + 1]; ++e) {
      value.load(from + int64_t{entries[e].point} * W);
      sum.add(entries[e].weight, value);
    }
    sum.store(values + v * W);
  }
}

template <int W>
C2AM_INLINE void blur_rows(const int32_t* neighbours, const float* from, float* to, int64_t first,
                           int64_t last) {
  for (int64_t v = first; v < last; ++v) {
    Row<W> self, one, other;
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
  for (int64_t n = first; n < last; ++n, to += W) {
    Row<W> sum, value;
    sum.load(to);
    for (int k = 0; k < corners; ++k) {
      value.load(values + int64_t{corner[n * corners + k]} * W);
      sum.add(weight[n * corners + k], value);
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
