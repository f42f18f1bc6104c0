#include "cuda_queue.h"
#include "random_walk/device.h"

namespace c2am {
namespace {

// Of the padded grid of images that share launches: their planes stay in the cache of a large GPU.
constexpr int64_t kMostPixels = 1 << 18;

class WalkQueue : public CudaQueue {
 public:
  static constexpr int kWalkTeam = 4;

  WalkQueue(int device, void* stream) : CudaQueue("random_walk", device, stream) {}
};

}  // namespace

struct RandomWalkCuda::Parts {
  std::vector<device::Walk> walks;
};

// Images of similar width lie in one grid, which is as wide as the widest.
RandomWalkCuda::RandomWalkCuda(const std::vector<WalkImage>& batch, const RandomWalk& walk) {
  std::vector<WalkImage> images;
  for (WalkImage image : batch) {
    const int64_t maps = image.maps, pixels = image.height * image.width;
    for (int64_t map = 0; map < maps; map += device::kMostMaps) {
      image.maps = std::min<int64_t>(maps - map, device::kMostMaps);
      images.push_back(image);
      image.cam += device::kMostMaps * pixels;
      image.out += device::kMostMaps * pixels;
    }
  }
  std::stable_sort(images.begin(), images.end(),
                   [](const WalkImage& a, const WalkImage& b) { return a.width > b.width; });
  auto parts = std::make_unique<Parts>();
  const int64_t margin = reach(walk.radius);
  for (size_t first = 0, last = 0; first < images.size(); first = last) {
    int64_t rows = 0;
    do {
      rows += images[last++].height + margin;
    } while (last < images.size() &&
             (rows + images[last].height) * (images[first].width + margin) <= kMostPixels);
    parts->walks.emplace_back(images.data() + first, images.data() + last, walk);
  }
  parts_ = std::move(parts);
}

RandomWalkCuda::~RandomWalkCuda() = default;

int64_t RandomWalkCuda::bytes() const {
  int64_t most = 0;
  for (const device::Walk& walk : parts_->walks) most = std::max(most, walk.bytes());
  return most;
}

void RandomWalkCuda::run(void* block, int device, void* stream) const {
  WalkQueue queue(device, stream);
  for (const device::Walk& walk : parts_->walks) walk.run(queue, block);
}

}  // namespace c2am
