// The functions that a GPU's threads run, one after the other on the host, against the CPU's core.
#include <cmath>
#include <memory>
#include <set>

#include "host_queue.h"
#include "native.h"
#include "random_walk/walk.h"

namespace {

using c2am::device::Batch;
using c2am::device::TileLimits;
using c2am::device::Tiling;
using c2am::device::Walk;

// A block of threads: they take turns, and wait after each loop.
struct HostTeam {
  void* memory;
  int32_t block;
  bool backwards;  // the order of the threads must not count

  template <typename Body>
  void each(int32_t n, const Body& body) const {
    for (int32_t i = 0; i < n; ++i) body(backwards ? n - 1 - i : i);
  }
};

struct WalkQueue : native::HostQueue {
  static constexpr int kWalkTeam = 1;

  // Between two exchanges a block does all that it does before the next one begins.
  void together(int64_t blocks, int64_t bytes, const c2am::device::TiledWalk& walk) {
    std::vector<std::unique_ptr<native::Block>> memory;
    for (int64_t b = 0; b < blocks; ++b) memory.push_back(std::make_unique<native::Block>(bytes));
    const auto each = [&](const auto& call) {
      for (int64_t i = 0; i < blocks; ++i) {
        const int64_t b = backwards ? blocks - 1 - i : i;
        call(HostTeam{memory[b]->data(), static_cast<int32_t>(b), backwards});
      }
    };
    each([&](const HostTeam& team) { walk.begin(team); });
    for (int32_t n = 0; n < walk.exchanges(); ++n) {
      each([&](const HostTeam& team) { walk.exchange(team, n); });
    }
  }

  bool backwards;
};

// Images of (maps, height, width) with their results.
struct Images {
  explicit Images(const std::vector<std::vector<int64_t>>& shapes) : shapes(shapes) {
    for (const auto& shape : shapes) {
      const auto seed = static_cast<unsigned>(cams.size());
      const int64_t pixels = shape[1] * shape[2];
      cams.push_back(native::uniform(shape[0] * pixels, 0, 1, seed));
      edges.push_back(native::uniform(pixels, 0, 1, seed + 100));
    }
  }
  std::vector<c2am::WalkImage> batch() {
    outs.clear();
    for (const auto& cam : cams) outs.emplace_back(cam.size(), NAN);
    std::vector<c2am::WalkImage> images;
    for (size_t b = 0; b < shapes.size(); ++b) {
      images.push_back({cams[b].data(), edges[b].data(), outs[b].data(), shapes[b][0], shapes[b][1],
                        shapes[b][2]});
    }
    return images;
  }

  std::vector<std::vector<int64_t>> shapes;
  std::vector<std::vector<float>> cams, edges, outs;
};

void run(const Walk& walk, bool backwards) {
  native::Block block(walk.bytes());
  WalkQueue queue;
  queue.backwards = backwards;
  walk.run(queue, block.data());
}

// The images as the parts of a batch, whose tilings it returns.
std::vector<Tiling> walk_batch(const std::vector<std::vector<int64_t>>& shapes,
                               const c2am::RandomWalk& walk, const TileLimits& limits) {
  Images images(shapes);
  const Batch forwards(images.batch(), walk, limits);
  for (const Walk& part : forwards.walks()) run(part, false);
  const std::vector<std::vector<float>> first = images.outs;
  const Batch backwards(images.batch(), walk, limits);
  std::vector<Tiling> tilings;
  for (const Walk& part : backwards.walks()) {
    run(part, true);
    tilings.push_back(part.tiling());
  }
  for (size_t b = 0; b < shapes.size(); ++b) {
    native::check(images.outs[b] == first[b], "the order of threads and blocks counts");
    std::vector<float> expected(first[b].size(), NAN);
    c2am::random_walk_cpu(images.cams[b].data(), images.edges[b].data(), expected.data(),
                          shapes[b][0], shapes[b][1], shapes[b][2], walk, 1);
    for (size_t i = 0; i < expected.size(); ++i) {
      native::check(std::abs(first[b][i] - expected[i]) < 1e-5f, "walk");
    }
  }
  return tilings;
}

constexpr TileLimits kNone{0, 0, 0}, kLarge{132, 232448, 16384}, kSmall{7, 232448, 16384};

// One walk with several numbers of steps between exchanges, and step by step. Returns the former.
std::set<int32_t> walk_tiles(const c2am::RandomWalk& walk) {
  Images images({{5, 11, 45}, {2, 6, 70}});
  std::set<int32_t> numbers;
  std::vector<std::vector<float>> expected;
  for (const double barrier : {0.0, 1e4, 1e5, 1e6}) {
    const TileLimits limits{expected.empty() ? 0 : 100, 1 << 20, barrier};
    const std::vector<c2am::WalkImage> batch = images.batch();
    const Walk part(batch.data(), batch.data() + batch.size(), walk, limits);
    run(part, true);
    if (expected.empty()) expected = images.outs;
    if (part.tiled()) numbers.insert(part.tiling().together);
    for (size_t b = 0; b < expected.size(); ++b) {
      for (size_t i = 0; i < expected[b].size(); ++i) {
        native::check(std::abs(images.outs[b][i] - expected[b][i]) < 2e-6f, "tiles");
      }
    }
  }
  return numbers;
}

}  // namespace

NATIVE_TEST(random_walk_device) {
  for (const double radius : {1.0, 2.5, 5.0, 10.0}) {
    for (const bool chebyshev : {true, false}) {
      const c2am::RandomWalk walk{radius, 10.0, 9, chebyshev, 1e-6};
      for (const TileLimits& limits : {kNone, kLarge}) {
        const bool tiled = limits.blocks > 0 && radius < 10;  // whose links take too much
        for (const Tiling& tiling : walk_batch({{1, 1, 1}}, walk, limits)) {
          native::check((tiling.rows > 0) == tiled, "small images have a tiling");
        }
        walk_batch({{3, 17, 23}}, walk, limits);
        walk_batch({{5, 7, 13}, {1, 30, 1}, {4, 1, 12}, {2, 12, 13}, {9, 3, 2}}, walk, limits);
        walk_batch({{1, 4, 4}, {1, 4, 4}}, {radius, 10.0, 0, chebyshev, 1e-6}, limits);
      }
    }
  }
}

// Steps that are no multiple of those between exchanges, or fewer; tiles that reach beyond the
// grid.
NATIVE_TEST(random_walk_tiles) {
  std::set<int32_t> numbers;
  for (const double radius : {1.0, 1.5, 2.5, 5.0}) {
    for (const int64_t steps : {1, 2, 7, 8}) {
      numbers.merge(walk_tiles({radius, 10.0, steps, true, 0}));
      numbers.merge(walk_tiles({radius, 10.0, steps, false, 0}));
    }
  }
  native::check(numbers == std::set<int32_t>{1, 2, 3, 4}, "all numbers of steps between exchanges");
}

// NaN stays in its image: the cells between the images keep their 0.
NATIVE_TEST(random_walk_nan) {
  for (const double radius : {2.0, 5.0}) {
    const c2am::RandomWalk walk{radius, 10.0, 40, true, 1e-6};
    Images two({{3, 9, 40}, {3, 8, 35}});
    std::fill(two.cams[0].begin(), two.cams[0].end(), NAN);
    const std::vector<c2am::WalkImage> images = two.batch();
    const Walk alone(images.data() + 1, images.data() + 2, walk, kLarge);
    run(alone, false);
    const std::vector<float> expected = two.outs[1];
    for (const TileLimits& limits : {kNone, kLarge}) {
      std::fill(two.outs[1].begin(), two.outs[1].end(), NAN);
      const Walk both(images.data(), images.data() + 2, walk, limits);
      native::check(both.tiled() == (limits.blocks > 0), "tiled");
      run(both, false);
      native::check(two.outs[1] == expected, "NaN of another image");
      native::check(std::isnan(two.outs[0].front()), "NaN shows in its own image");
    }
  }
}

// What is large for the device is walked in parts, or step by step; nothing is left out.
NATIVE_TEST(random_walk_parts) {
  const c2am::RandomWalk walk{5.0, 10.0, 5, true, 1e-6};
  const std::vector<Tiling> parts = walk_batch(
      {{21, 20, 60}, {1, 70, 90}, {0, 4, 4}, {3, 8, 31}, {3, 8, 31}, {1, 150, 200}}, walk, kSmall);
  int64_t tiled = 0;
  for (const Tiling& tiling : parts) {
    tiled += tiling.rows > 0;
    native::check(tiling.blocks() <= kSmall.blocks, "blocks");
  }
  native::check(tiled == 3 && parts.size() == 4, "both ways");
  // A 375 x 500 image at a quarter of its size: small tiles on all multiprocessors, one barrier a
  // step. Of a batch several share a launch, in large tiles.
  const Tiling single = c2am::device::choose_tiling(94, 125, 1, 4, 34, kLarge);
  native::check(single.rows == 4 && single.together == 1, "one image");
  Images many(std::vector<std::vector<int64_t>>(13, {3, 94, 125}));
  const Batch batch(many.batch(), walk, kLarge);
  native::check(batch.walks().size() == 3, "six images to a launch");
  native::check(batch.walks()[0].tiling().rows == 20, "large tiles");
  // The fifth map of one would double the blocks of the others.
  Images mixed({{5, 20, 30}, {3, 20, 30}, {4, 20, 30}});
  native::check(Batch(mixed.batch(), walk, kLarge).walks().size() == 2, "as many fours");
  native::check(Batch(mixed.batch(), walk, kNone).walks().size() == 1, "step by step");
  // Where a step is cheap, several pass between exchanges.
  native::check(c2am::device::choose_tiling(94, 125, 1, 1, 4, kLarge).together > 1, "radius 2");
}
