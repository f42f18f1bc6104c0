#include "normalize_cam/normalize_cam.h"

#include "elements.h"
#include "native.h"

namespace {

template <typename E>
void normalize(int64_t maps, int64_t pixels) {
  std::vector<E> cam(maps * pixels);
  const std::vector<float> values = native::uniform(maps * pixels, 0, 3);
  for (size_t i = 0; i < cam.size(); ++i) c2am::narrow(c2am::Wide<E>(values[i]), cam[i]);
  native::same_for_all_threads("normalize_cam", maps * pixels, [&](int threads, float* out) {
    std::vector<E> result(cam.size());
    const bool valid =
        c2am::normalize_cam_cpu(cam.data(), result.data(), maps, pixels, 1e-5, threads);
    native::check(valid, "normalize_cam: valid maps are refused");
    for (size_t i = 0; i < cam.size(); ++i) out[i] = static_cast<float>(c2am::widen(result[i]));
  });
}

}  // namespace

NATIVE_TEST(normalize_cam) {
  for (const int64_t pixels : {1, 31, 33, 40001}) {
    normalize<float>(2, pixels);
    normalize<double>(1, pixels);
    normalize<c2am::Half>(1, pixels);
    normalize<c2am::BFloat16>(3, pixels);
  }
}
