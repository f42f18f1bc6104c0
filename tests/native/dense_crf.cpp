#include "dense_crf/dense_crf.h"

#include "native.h"

namespace {

constexpr c2am::DenseCrfKernels kLabels{3, 3, 50, 5, 10};        // of IRN's labels
constexpr c2am::DenseCrfKernels kSegmenter{1, 3, 67, 3, 4};      // of DeepLab
constexpr c2am::DenseCrfKernels kNarrow{0.5, 1, 0.01, 0.01, 1};  // keys of more than 64 bits

void infer(int64_t height, int64_t width, int64_t classes, const c2am::DenseCrfKernels& kernels) {
  const std::vector<uint8_t> image = native::bytes(height * width * 3);
  const std::vector<float> unary = native::uniform(classes * height * width, 0, 3);
  native::same_for_all_threads("dense_crf", unary.size(), [&](int threads, float* out) {
    const c2am::DenseCrf crf(image.data(), height, width, kernels, threads);
    crf.run(unary.data(), out, classes, 2, threads);
  });
}

}  // namespace

NATIVE_TEST(dense_crf) {
  for (const auto& [height, width] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {7, 3}, {1, 30}, {30, 1}, {37, 41}}) {
    for (const int64_t classes : {1, 2, 3, 4, 5, 9, 21}) infer(height, width, classes, kLabels);
    infer(height, width, 21, kSegmenter);
    infer(height, width, 3, kNarrow);
  }
  infer(9, 11, 128, kLabels);
}
