#include "front_door_logits/front_door_logits.h"

#include "native.h"

namespace {

template <typename T>
void adjust(int64_t pixels, const c2am::FrontDoor& front_door) {
  constexpr int64_t batch = 3, classes = 5;
  const std::vector<float> p = native::uniform(batch * classes, -40, 40);
  const std::vector<float> g = native::uniform(classes * pixels, 0, 1, 1);
  const std::vector<T> logits(p.begin(), p.end()), global_cam(g.begin(), g.end());
  native::same_for_all_threads("front_door_logits", 2 * batch * classes, [&](int n, float* out) {
    std::vector<T> result(2 * batch * classes);
    const bool finite = c2am::front_door_logits_cpu(logits.data(), global_cam.data(), result.data(),
                                                    result.data() + batch * classes, batch, classes,
                                                    pixels, front_door, n);
    native::check(finite, "front_door_logits: finite arguments are refused");
    for (size_t i = 0; i < result.size(); ++i) out[i] = static_cast<float>(result[i]);
  });
}

}  // namespace

NATIVE_TEST(front_door_logits) {
  for (const auto pooling : {c2am::Pooling::mean, c2am::Pooling::max, c2am::Pooling::lse}) {
    for (const bool sigmoid : {false, true}) {
      for (const int64_t pixels : {1, 49, 1025}) {
        adjust<float>(pixels, {pooling, 2.0, sigmoid});
        adjust<double>(pixels, {pooling, 2.0, sigmoid});
      }
    }
  }
}
