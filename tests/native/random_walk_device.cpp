// The functions that a GPU's threads run, one after the other on the host, against the CPU's core.
#include <cmath>

#include "host_queue.h"
#include "native.h"
#include "random_walk/device.h"

namespace {

struct WalkQueue : native::HostQueue {
  static constexpr int kWalkTeam = 1;
};

// Images of (maps, height, width) in one grid.
void walk_together(const std::vector<std::vector<int64_t>>& shapes, const c2am::RandomWalk& walk) {
  std::vector<std::vector<float>> cams, edges, outs;
  for (const auto& shape : shapes) {
    const auto seed = static_cast<unsigned>(cams.size());
    const int64_t pixels = shape[1] * shape[2];
    cams.push_back(native::uniform(shape[0] * pixels, 0, 1, seed));
    edges.push_back(native::uniform(pixels, 0, 1, seed + 100));
    outs.emplace_back(shape[0] * pixels, NAN);
  }
  std::vector<c2am::WalkImage> images;
  for (size_t b = 0; b < shapes.size(); ++b) {
    images.push_back({cams[b].data(), edges[b].data(), outs[b].data(), shapes[b][0], shapes[b][1],
                      shapes[b][2]});
  }
  const c2am::device::Walk ours(images.data(), images.data() + images.size(), walk);
  native::Block block(ours.bytes());
  WalkQueue queue;
  ours.run(queue, block.data());
  for (size_t b = 0; b < shapes.size(); ++b) {
    std::vector<float> expected(outs[b].size(), NAN);
    c2am::random_walk_cpu(cams[b].data(), edges[b].data(), expected.data(), shapes[b][0],
                          shapes[b][1], shapes[b][2], walk, 1);
    for (size_t i = 0; i < expected.size(); ++i) {
      native::check(std::abs(outs[b][i] - expected[i]) < 1e-5f, "walk");
    }
  }
}

}  // namespace

NATIVE_TEST(random_walk_device) {
  for (const double radius : {1.0, 2.5, 5.0, 10.0}) {
    for (const bool chebyshev : {true, false}) {
      const c2am::RandomWalk walk{radius, 10.0, 9, chebyshev, 1e-6};
      walk_together({{1, 1, 1}}, walk);
      walk_together({{3, 17, 23}}, walk);
      walk_together({{5, 7, 13}, {1, 30, 1}, {4, 1, 12}, {2, 12, 13}, {9, 3, 2}}, walk);
      walk_together({{1, 4, 4}, {1, 4, 4}}, {radius, 10.0, 0, chebyshev, 1e-6});
    }
  }
}
