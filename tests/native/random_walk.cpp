#include "random_walk/random_walk.h"

#include "native.h"

NATIVE_TEST(random_walk) {
  const std::vector<std::vector<int64_t>> shapes = {
      {0, 5, 5}, {1, 1, 1}, {2, 7, 3}, {1, 1, 30}, {1, 30, 1}, {3, 37, 41}, {1, 70, 131}};
  for (const auto& shape : shapes) {
    const int64_t maps = shape[0], height = shape[1], width = shape[2];
    const std::vector<float> cam = native::uniform(maps * height * width, 0, 1);
    const std::vector<float> edge = native::uniform(height * width, 0, 1, 1);
    for (const double radius : {1.0, 2.5, 5.0, 10.0}) {
      for (const bool chebyshev : {true, false}) {
        const c2am::RandomWalk walk{radius, 10.0, 9, chebyshev, 1e-6};
        native::same_for_all_threads("random_walk", cam.size(), [&](int threads, float* out) {
          c2am::random_walk_cpu(cam.data(), edge.data(), out, maps, height, width, walk, threads);
        });
      }
    }
  }
}
