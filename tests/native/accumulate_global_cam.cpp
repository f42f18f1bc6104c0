#include "accumulate_global_cam/accumulate_global_cam.h"

#include "native.h"

namespace {

template <typename T>
void accumulate(int64_t maps, int64_t pixels) {
  const std::vector<float> cam = native::uniform(maps * pixels, 0, 1);
  std::vector<int64_t> class_index(maps);
  for (int64_t k = 0; k < maps; ++k) class_index[k] = k % 3;
  native::same_for_all_threads("accumulate_global_cam", 3 * pixels, [&](int threads, float* out) {
    std::vector<T> total(3 * pixels);
    std::vector<int64_t> count(3);
    const bool valid = c2am::accumulate_global_cam_cpu(cam.data(), class_index.data(), total.data(),
                                                       count.data(), maps, pixels, threads);
    native::check(valid, "accumulate_global_cam: valid maps are refused");
    for (size_t i = 0; i < total.size(); ++i) out[i] = static_cast<float>(total[i]);
  });
}

}  // namespace

NATIVE_TEST(accumulate_global_cam) {
  for (const int64_t pixels : {1, 35, 9001}) {
    accumulate<float>(5, pixels);
    accumulate<double>(5, pixels);
  }
}
