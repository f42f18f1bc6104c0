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

// More images than threads, then fewer.
NATIVE_TEST(random_walk_batch) {
  const c2am::RandomWalk walk{2.5, 10.0, 9, true, 1e-6};
  for (const int64_t count : {9, 1, 0}) {
    std::vector<std::vector<float>> cams, edges;
    int64_t values = 0;
    for (int64_t i = 0; i < count; ++i) {
      cams.push_back(native::uniform((i % 3) * (5 + i) * 11, 0, 1, i));
      edges.push_back(native::uniform((5 + i) * 11, 0, 1, i + 1));
      values += static_cast<int64_t>(cams.back().size());
    }
    native::same_for_all_threads("random_walk_batch", values, [&](int threads, float* out) {
      std::vector<c2am::WalkImage> images;
      for (int64_t i = 0; i < count; ++i) {
        images.push_back({cams[i].data(), edges[i].data(), out, i % 3, 5 + i, 11});
        out += cams[i].size();
      }
      c2am::random_walk_batch_cpu(images, walk, threads);
    });
  }
}
