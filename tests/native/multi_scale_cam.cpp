#include "multi_scale_cam/multi_scale_cam.h"

#include "native.h"

namespace {

template <typename T>
void merge(int64_t height, int64_t width, const c2am::MergedSize& size) {
  constexpr int64_t kMaps = 3;
  const int64_t pixels = size.kept_height * size.kept_width;
  native::same_for_all_threads("multi_scale_cam", kMaps * pixels, [&](int threads, float* out) {
    std::vector<std::vector<T>> maps;
    std::vector<c2am::ScaleMaps<T>> scales;
    for (const int64_t scale : {2, 1, 3}) {
      const std::vector<float> values =
          native::uniform(kMaps * scale * height * scale * width, 0, 1);
      maps.emplace_back(values.begin(), values.end());
      scales.push_back({maps.back().data(), scale * height, scale * width});
    }
    std::vector<T> result(kMaps * pixels);
    c2am::multi_scale_cam_cpu(scales, result.data(), kMaps, size, 1e-5, threads);
    for (size_t i = 0; i < result.size(); ++i) out[i] = static_cast<float>(result[i]);
  });
}

}  // namespace

NATIVE_TEST(multi_scale_cam) {
  merge<float>(1, 1, {1, 1, 1, 1});
  merge<float>(5, 7, {144, 80, 130, 75});
  merge<double>(9, 4, {16, 48, 9, 33});
}
