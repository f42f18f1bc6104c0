#include "extract_cam/extract_cam.h"

#include "elements.h"
#include "native.h"

namespace {

template <typename E>
void maps_of(int64_t channels, int64_t height, int64_t width, bool channels_last) {
  const c2am::CamShape shape{3, 2, channels, 4, height, width, channels_last};
  const bool present[12] = {true, true, false, true, false, false, false, false, false, true};
  std::vector<E> features(3 * 2 * channels * height * width);
  const std::vector<float> values = native::uniform(features.size(), -1, 1);
  for (size_t i = 0; i < values.size(); ++i) c2am::narrow(c2am::Wide<E>(values[i]), features[i]);
  std::vector<c2am::Wide<E>> weight(4 * channels, 0.5);
  const int64_t out_height = 2 * height + 90, out_width = width + 1;
  native::same_for_all_threads("extract_cam", 4 * out_height * out_width, [&](int n, float* out) {
    std::vector<c2am::Wide<E>> maps(4 * height * width), large(4 * out_height * out_width);
    native::check(
        c2am::class_maps_cpu(features.data(), weight.data(), present, maps.data(), shape, n),
        "extract_cam: finite features have no finite products");
    c2am::resize_maps_cpu(maps.data(), large.data(), 4, height, width, out_height, out_width, true,
                          n);
    for (size_t i = 0; i < large.size(); ++i) out[i] = static_cast<float>(large[i]);
  });
}

}  // namespace

NATIVE_TEST(extract_cam) {
  for (const bool channels_last : {false, true}) {
    for (const int64_t channels : {1, 8, 77}) {
      maps_of<float>(channels, 1, 1, channels_last);
      maps_of<float>(channels, 23, 31, channels_last);
      maps_of<double>(channels, 7, 3, channels_last);
      maps_of<c2am::Half>(channels, 9, 31, channels_last);
      maps_of<c2am::BFloat16>(channels, 9, 31, channels_last);
    }
  }
}
