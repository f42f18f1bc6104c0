// The functions that a GPU's threads run, one after the other on the host, against the CPU's core.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>

#include "dense_crf/device/crf.h"
#include "dense_crf/permutohedral.h"
#include "host_queue.h"
#include "native.h"

namespace {

using c2am::DenseCrfKernels;
using c2am::device::CornersBy;
using c2am::device::kAxes;
using c2am::device::Lattice;

// How a lattice is built. Threads that write to a hash table are tried in two orders.
struct Way {
  bool hashed, shuffled;
};
constexpr Way kSorted{false, false}, kHashed{true, false}, kShuffled{true, true};

struct CrfQueue : native::HostQueue {
  static constexpr int kTeam = 1;

  bool shuffled;

  template <typename Body>
  void each(int64_t n, int lanes, const Body& body) {
    constexpr int64_t kPrime = 1000003;  // above all n, so that every i comes once
    HostQueue::each(n, lanes,
                    [&](int64_t i, int lane) { body(shuffled ? i * kPrime % n : i, lane); });
  }
  template <typename Key>
  void sort(CornersBy<Key>& by, int64_t count, int bits, char*) {
    std::vector<int32_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return by.keys[a] < by.keys[b]; });
    for (int64_t i = 0; i < count; ++i) {
      by.other_keys[i] = by.keys[order[i]];
      by.other_corners[i] = by.corners[order[i]];
      native::check(by.keys[i] >> bits == 0, "keys have the bits that are sorted");
    }
    std::swap(by.keys, by.other_keys);
    std::swap(by.corners, by.other_corners);
  }
  void sum(uint32_t* values, int64_t count, char*) {
    std::partial_sum(values, values + count, values);
  }
  template <typename Key>
  int64_t scratch_bytes(const CornersBy<Key>&, const uint32_t*, int64_t, int) const {
    return 0;
  }
  template <int V, typename F>
  static void with_team(int vectors, const F& f) {
    constexpr int kMost = V == 4 ? 64 : 1;
    native::check(vectors <= kMost, "a team takes all vectors");
    f(std::integral_constant<int, kMost>(), std::integral_constant<int, 1>());
  }
};

struct Built {
  Built(const std::vector<uint8_t>& image, int64_t images, int64_t height, int64_t width,
        const DenseCrfKernels& kernels, Way way)
      : queue{{}, way.shuffled},
        crf(images, height, width, kernels, way.hashed),
        points(crf.points_bytes()),
        finding(crf.find_bytes(queue)) {
    int32_t count = -1;
    crf.find(queue, image.data(), points.data(), finding.data(), &count);
    vertices = std::make_unique<native::Block>(crf.vertices_bytes(count));
    native::Block scratch(crf.build_bytes(count));
    crf.build(queue, count, vertices->data(), scratch.data());
  }

  CrfQueue queue;
  c2am::device::Crf crf;
  native::Block points, finding;
  std::unique_ptr<native::Block> vertices;
};

// Images (height, width, 3).
std::vector<uint8_t> ramp(int64_t height, int64_t width) {
  return native::bytes(height * width * 3);
}
std::vector<uint8_t> constant(int64_t height, int64_t width) {
  return std::vector<uint8_t>(height * width * 3, 77);
}
std::vector<uint8_t> noise(int64_t height, int64_t width) {
  std::mt19937 engine(0);
  std::vector<uint8_t> image(height * width * 3);
  for (uint8_t& value : image) value = static_cast<uint8_t>(engine());
  return image;
}

// Of each vertex along an axis, from its chains.
std::vector<c2am::device::Neighbours> neighbours(const c2am::PermutohedralLattice& lattice,
                                                 int axis) {
  std::vector<c2am::device::Neighbours> pairs(lattice.vertices + 1, {0, 0});
  const auto starts = static_cast<int64_t>(lattice.blocks.size());
  for (int64_t b = 0; b + 1 < starts; ++b) {
    const uint32_t* entry = lattice.chains.data() + lattice.chain_starts[axis * starts + b];
    native::check(*entry % 2 == 1, "a chain begins");
    for (; *entry != 1; ++entry) {
      if (entry[1] % 2 == 1) continue;
      pairs[entry[0] / 2].after = static_cast<int32_t>(entry[1] / 2);
      pairs[entry[1] / 2].before = static_cast<int32_t>(entry[0] / 2);
    }
  }
  return pairs;
}

void same_lattice(const std::vector<uint8_t>& image, int64_t height, int64_t width,
                  const DenseCrfKernels& kernels, Way way) {
  Built built(image, 1, height, width, kernels, way);
  const Lattice& ours = built.crf.lattice();
  const c2am::PermutohedralLattice theirs(
      c2am::image_features(image.data(), height, width, kernels.bilateral_sxy,
                           kernels.bilateral_srgb),
      1);
  native::check(ours.vertices == theirs.vertices, "vertices");
  const int64_t rows = ours.vertices + 1;
  for (int k = 0; k < kAxes; ++k) {
    for (int64_t n = 0; n < ours.points; ++n) {
      const int64_t at = k * ours.points + n, other = n * kAxes + k;
      native::check(ours.corner[at] == theirs.corner[other], "corners");
      native::check(ours.weight[at] == theirs.weight[other], "weights");
    }
    const std::vector<c2am::device::Neighbours> pairs = neighbours(theirs, k);
    for (int64_t v = 0; v < rows; ++v) {
      const c2am::device::Neighbours pair = ours.neighbours[k * rows + v];
      native::check(pair.after == pairs[v].after && pair.before == pairs[v].before, "neighbours");
    }
  }
  std::vector<std::vector<int64_t>> around(rows);  // the points with weight on each vertex
  for (int64_t at = 0; at < ours.points * kAxes; ++at) {
    if (theirs.weight[at] != 0) around[theirs.corner[at]].push_back(at / kAxes);
  }
  int64_t i = 0;
  for (int64_t v = 1; v <= ours.vertices; ++v) {
    native::check(ours.start[v] == i, "start");
    for (const int64_t point : around[v]) {
      while (ours.entries[i].weight == 0) ++i;
      native::check(static_cast<int64_t>(ours.entries[i].point()) == point, "entries");
      ++i;
    }
    while (i < ours.start[v + 1]) native::check(ours.entries[i++].weight == 0, "entries left");
  }
}

void infer(int64_t images, int64_t height, int64_t width, int64_t classes,
           const DenseCrfKernels& kernels, int seed, Way way,
           std::vector<uint8_t> (*draw)(int64_t, int64_t) = ramp) {
  const int64_t pixels = height * width, values = classes * pixels;
  const std::vector<uint8_t> image = draw(images * height, width);
  const std::vector<float> unary = native::uniform(images * values, 0, 3, seed);
  Built built(image, images, height, width, kernels, way);
  for (const int64_t iterations : {0, 1, 4}) {
    std::vector<float> ours(images * values, NAN), theirs(values, NAN);
    std::vector<uint8_t> labels(images * pixels, 255), their_labels(pixels, 255);
    native::Block scratch(built.crf.infer_bytes<float>(classes));
    built.crf.infer<float>(built.queue, {unary.data(), ours.data(), nullptr, classes, iterations},
                           scratch.data());
    built.crf.infer<float>(built.queue, {unary.data(), nullptr, labels.data(), classes, iterations},
                           scratch.data());
    for (int64_t b = 0; b < images; ++b) {
      const c2am::DenseCrf crf(image.data() + b * pixels * 3, height, width, kernels, false, 1);
      crf.run(unary.data() + b * values, theirs.data(), nullptr, classes, iterations, false, 1);
      for (int64_t i = 0; i < values; ++i) {
        native::check(std::abs(ours[b * values + i] - theirs[i]) < 1e-4f, "marginals");
      }
      for (int64_t n = 0; n < pixels; ++n) {
        const float* q = ours.data() + b * values + n;
        const float chosen = q[labels[b * pixels + n] * pixels];
        for (int64_t c = 0; c < classes; ++c) {
          native::check(chosen >= q[c * pixels] - 1e-6f, "labels");
        }
      }
    }
  }
}

}  // namespace

NATIVE_TEST(dense_crf_device) {
  constexpr DenseCrfKernels kLabels{3, 3, 50, 5, 10}, kSegmenter{1, 3, 67, 3, 4};
  constexpr DenseCrfKernels kFine{0.05, 1, 0.7, 0.9, 2}, kWide{40, 1, 500, 200, 1};
  constexpr DenseCrfKernels kFinest{1, 1, 1, 0.25, 1};
  for (const auto& [height, width] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {7, 3}, {1, 30}, {30, 1}, {37, 41}}) {
    for (const DenseCrfKernels& kernels : {kLabels, kSegmenter, kFine, kWide}) {
      for (const auto& image :
           {ramp(height, width), constant(height, width), noise(height, width)}) {
        for (const Way way : {kSorted, kHashed, kShuffled}) {
          same_lattice(image, height, width, kernels, way);
        }
      }
      infer(1, height, width, 3, kernels, 1, kSorted);
    }
  }
  const Built distinct(noise(9, 11), 1, 9, 11, kFinest, kShuffled);
  native::check(distinct.crf.lattice().vertices == distinct.crf.lattice().count(),
                "a table with as many vertices as corners");
  for (const int64_t classes : {1, 2, 3, 4, 5, 6, 9, 21, 128, 255}) {
    infer(2, 9, 11, classes, kLabels, static_cast<int>(classes), kSorted);
  }
  for (const Way way : {kSorted, kHashed}) {
    infer(3, 23, 31, 21, kSegmenter, 5, way);
    infer(1, 23, 31, 3, kLabels, 5, way, noise);
    infer(2, 23, 31, 3, kLabels, 5, way, constant);  // sums over many tiles
  }
  for (const DenseCrfKernels& kernels : {kLabels, kSegmenter, kFinest}) {
    const int64_t images = c2am::device::Crf::most_images(4096, 4096, kernels);
    native::check(images > 0 && images < 22, "4096 x 4096 pixels have keys and numbers");
    const c2am::device::Crf crf(1, 4096, 4096, kernels, false);
    native::check(crf.points_bytes() > int64_t{4096} * 4096 * 96, "sizes beyond 32 bits");
  }
}
