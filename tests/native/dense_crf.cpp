#include "dense_crf/dense_crf.h"

#include <algorithm>

#include "dense_crf/mean_field.h"
#include "native.h"

namespace {

constexpr c2am::DenseCrfKernels kLabels{3, 3, 50, 5, 10};        // of IRN's labels
constexpr c2am::DenseCrfKernels kSegmenter{1, 3, 67, 3, 4};      // of DeepLab
constexpr c2am::DenseCrfKernels kNarrow{0.5, 1, 0.01, 0.01, 1};  // keys of more than 64 bits
constexpr c2am::DenseCrfKernels kWide{3, 3, 1e4, 30, 10};  // threads meet at the same vertices

void infer(int64_t height, int64_t width, int64_t classes, const c2am::DenseCrfKernels& kernels,
           bool exact = false, bool half = false) {
  const std::vector<uint8_t> image = native::bytes(height * width * 3);
  const std::vector<float> unary = native::uniform(classes * height * width, 0, 3);
  native::same_for_all_threads("dense_crf", unary.size(), [&](int threads, float* out) {
    const c2am::DenseCrf crf(image.data(), height, width, kernels, exact, threads);
    crf.run(unary.data(), out, nullptr, classes, 2, half, threads);
    std::vector<uint8_t> labels(height * width, 255);
    crf.run(unary.data(), nullptr, labels.data(), classes, 2, half, threads);
    native::check(*std::max_element(labels.begin(), labels.end()) < classes, "labels are classes");
  });
}

// A lattice and a spatial kernel, the one with a matrix and the other with Potts' model.
void mean_field(int64_t points, int dimension, int64_t classes, float extent) {
  const std::vector<float> features = native::uniform(points * dimension, 0, extent);
  const std::vector<float> unary = native::uniform(points * classes, 0, 3);
  std::vector<float> potts(classes * classes, 0.0f), matrix = potts;
  for (int64_t b = 0; b < classes; ++b) {
    potts[b * classes + b] = -2;
    for (int64_t c = 0; c < classes; ++c) matrix[b * classes + c] = 0.1f * ((b * c) % 7);
  }
  native::same_for_all_threads("mean field", 2 * unary.size(), [&](int threads, float* out) {
    c2am::MeanField crf(points, classes);
    crf.add(c2am::lattice_kernel(features.data(), points, dimension, threads),
            c2am::Normalization::symmetric, matrix.data(), threads);
    crf.add(c2am::spatial_kernel(2, points / 2, 3, 1.5), c2am::Normalization::before, potts.data(),
            threads);
    crf.update(unary.data(), out, 2, false, threads);
    crf.update(unary.data(), out, 1, true, threads);
    crf.messages(out, out + unary.size(), threads);
  });
}

}  // namespace

NATIVE_TEST(dense_crf) {
  for (const auto& [height, width] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {7, 3}, {1, 30}, {30, 1}, {37, 41}}) {
    for (const int64_t classes : {1, 2, 3, 4, 5, 9, 21}) infer(height, width, classes, kLabels);
    infer(height, width, 21, kSegmenter);
    infer(height, width, 3, kNarrow);
    infer(height, width, 3, kLabels, true);
    for (const int64_t classes : {2, 3, 21}) infer(height, width, classes, kLabels, false, true);
  }
  infer(9, 11, 128, kLabels);
  infer(150, 150, 3, kWide);
  for (const int dimension : {1, 2, 3, 8}) {
    for (const int64_t classes : {1, 2, 3, 40}) mean_field(50, dimension, classes, 3);
    mean_field(50, dimension, 3, 1e4);
  }
}
