#include "dense_crf/mix.h"

#include "dense_crf/row.h"
#include "simd.h"

namespace c2am::loops {
namespace {

template <int W, typename T>
C2AM_INLINE void mix_rows(int64_t groups, int64_t pixels, const T* from, const T* matrix, T* to) {
  const int64_t channels = groups * W;
  Row<W> sum, factors;
  for (int64_t n = 0; n < pixels; ++n) {
    for (int64_t h = 0; h < groups; ++h) {
      T* at = to + (h * pixels + n) * W;
      sum.load(at);
      for (int64_t g = 0; g < groups; ++g) {
        const T* values = from + (g * pixels + n) * W;
        const T* rows = matrix + g * W * channels + h * W;
        for (int b = 0; b < W; ++b) {
          factors.load(rows + b * channels);
          sum.add(values[b], factors);
        }
      }
      sum.store(at);
    }
  }
}

C2AM_INLINE void mix_body(int width, int64_t groups, int64_t pixels, const float* from,
                          const float* matrix, float* to) {
  C2AM_FOR_WIDTH(width, mix_rows, (groups, pixels, from, matrix, to), float)
}

}  // namespace

C2AM_DISPATCH(mix,
              (int width, int64_t groups, int64_t pixels, const float* from, const float* matrix,
               float* to),
              (width, groups, pixels, from, matrix, to))

}  // namespace c2am::loops
