#include <omp.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "buffer.h"
#include "dense_crf/correlate.h"
#include "dense_crf/dense_crf.h"
#include "dense_crf/kernel.h"
#include "dense_crf/row.h"

namespace c2am {
namespace {

// to[n] = scale[n] * from[n], added to what is there or not, for rows of W channels.
template <int W, typename Added>
C2AM_INLINE void scale_rows(const float* from, const float* scale, int64_t count, float* to) {
  Row<W> row, sum;
  for (int64_t n = 0; n < count; ++n) {
    row.load(from + n * W);
    if constexpr (Added::value) {
      sum.load(to + n * W);
    } else {
      sum.clear();
    }
    sum.add(scale[n], row);
    sum.store(to + n * W);
  }
}
template <typename Added>
C2AM_INLINE void scale_body(int width, const float* from, const float* scale, int64_t count,
                            float* to){
    C2AM_FOR_WIDTH(width, scale_rows, (from, scale, count, to), Added)}
#define C2AM_SCALE(name, Added)                                                           \
  C2AM_DISPATCH_TO(                                                                       \
      name, (int width, const float* from, const float* scale, int64_t count, float* to), \
      (width, from, scale, count, to), scale_body<Added>, scale_body<Added>, scale_body<Added>)
C2AM_SCALE(scale_to, std::false_type) C2AM_SCALE(scale_onto, std::true_type)

    // Along the rows of the image in `filter`, and along its columns in `add`. Zeros lie beside
    // what is filtered, so that no loop ends at an edge.
    class SpatialPass : public Kernel::Pass {
 public:
  SpatialPass(const SpatialAxis& across, const SpatialAxis& down, int width)
      : across_(across),
        down_(down),
        width_(width),
        columns_(static_cast<int64_t>(across.norm.size())),
        rows_(static_cast<int64_t>(down.norm.size())),
        filtered_((rows_ + 2 * down.radius) * columns_ * width) {
    const int64_t margin = down.radius * columns_ * width;
    std::fill_n(filtered_.begin(), margin, 0.0f);
    std::fill_n(filtered_.end() - margin, margin, 0.0f);
  }

  void filter(const float* values, const float* scale, int threads) override {
    const int64_t floats = columns_ * width_, margin = across_.radius * width_;
    std::vector<Buffer<float>> rows;  // made here: nothing may be thrown in a parallel region
    for (int t = 0; t < threads; ++t) rows.emplace_back(floats + 2 * margin, 0.0f);
#pragma omp parallel num_threads(threads)
    {
      Buffer<float>& row = rows[omp_get_thread_num()];
#pragma omp for schedule(static)
      for (int64_t y = 0; y < rows_; ++y) {
        scale_to(width_, values + y * floats, scale + y * columns_, columns_, row.data() + margin);
        loops::correlate(1, row.data(), width_, across_.taps.data(), 2 * across_.radius + 1,
                         filtered_.data() + (y + down_.radius) * floats, 0, floats);
      }
    }
  }

  void add(int64_t first, int64_t last, const float* scale, float* to) const override {
    constexpr int64_t kChunk = 128;
    float sums[kChunk * kLargestWidth];
    for (int64_t n = first; n < last; n += kChunk) {
      const int64_t count = std::min(kChunk, last - n);
      loops::correlate(1, filtered_.data() + n * width_, columns_ * width_, down_.taps.data(),
                       2 * down_.radius + 1, sums, 0, count * width_);
      scale_onto(width_, sums, scale + n - first, count, to + (n - first) * width_);
    }
  }

 private:
  const SpatialAxis &across_, &down_;
  int width_;
  int64_t columns_, rows_;
  Buffer<float> filtered_;  // (H + 2 radius, W, width)
};

class SpatialKernel : public Kernel {
 public:
  SpatialKernel(int64_t height, int64_t width, double sx, double sy)
      : across_(sx, width), down_(sy, height) {}
  std::unique_ptr<Pass> pass(int width) const override {
    return std::make_unique<SpatialPass>(across_, down_, width);
  }

 private:
  SpatialAxis across_, down_;
};

}  // namespace

std::unique_ptr<const Kernel> spatial_kernel(int64_t height, int64_t width, double sx, double sy) {
  return std::make_unique<SpatialKernel>(height, width, sx, sy);
}

}  // namespace c2am
