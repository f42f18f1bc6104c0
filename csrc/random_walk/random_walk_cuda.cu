#include <cooperative_groups.h>

#include "cuda_queue.h"
#include "random_walk/walk.h"

namespace c2am {
namespace {

constexpr int kTileThreads = 512;
// An estimate for an H100: 1.5 us, in which a multiprocessor reads as many weights, each with four
// maps, from shared memory. By it one step at a time is best for radius 5, and four for radius 2.
constexpr double kBarrier = 16384;

// The block of threads as a team of device::TiledWalk.
struct BlockTeam {
  void* memory;
  int32_t block;

  template <typename Body>
  C2AM_HD void each(int32_t n, const Body& body) const {
#ifdef __CUDA_ARCH__
    for (auto i = static_cast<int32_t>(threadIdx.x); i < n; i += kTileThreads) body(i);
    __syncthreads();
#else
    (void)n, (void)body;  // a team of the host is that of a test
#endif
  }
};

template <typename Body>
__global__ void __launch_bounds__(kTileThreads, 1) tiles_kernel(const Body walk) {
  extern __shared__ float4 memory[];
  const BlockTeam team{memory, static_cast<int32_t>(blockIdx.x)};
  walk.begin(team);
  for (int32_t n = 0; n < walk.exchanges(); ++n) {
    walk.exchange(team, n);
    if (n + 1 < walk.exchanges()) cooperative_groups::this_grid().sync();
  }
}

class WalkQueue : public CudaQueue {
 public:
  static constexpr int kWalkTeam = 4;

  WalkQueue(int device, void* stream) : CudaQueue("random_walk", device, stream), device_(device) {}

  // A tile for each multiprocessor.
  device::TileLimits limits() const {
    const int bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    int blocks = 0;
    if (attribute(cudaDevAttrCooperativeLaunch) != 0) {
      allow(bytes);
      check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kKernel, kTileThreads, bytes));
      blocks = std::min(blocks, 1) * attribute(cudaDevAttrMultiProcessorCount);
    }
    return {blocks, bytes, kBarrier};
  }

  void together(int64_t blocks, int64_t bytes, const device::TiledWalk& walk) {
    // The same for all threads of the host: the most that there is.
    allow(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
    device::TiledWalk argument = walk;
    void* arguments[] = {&argument};
    check(cudaLaunchCooperativeKernel(kKernel, dim3(static_cast<unsigned>(blocks)),
                                      dim3(kTileThreads), arguments, bytes, stream()));
  }

 private:
  static constexpr auto kKernel = tiles_kernel<device::TiledWalk>;

  int attribute(cudaDeviceAttr name) const {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, name, device_));
    return value;
  }
  void allow(int bytes) const {
    check(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  }

  int device_;
};

}  // namespace

struct RandomWalkCuda::Parts {
  device::Batch batch;
};

RandomWalkCuda::RandomWalkCuda(const std::vector<WalkImage>& images, const RandomWalk& walk,
                               int device)
    : device_(device),
      parts_(new Parts{device::Batch(images, walk, WalkQueue(device, nullptr).limits())}) {}

RandomWalkCuda::~RandomWalkCuda() = default;

int64_t RandomWalkCuda::bytes() const {
  int64_t most = 0;
  for (const device::Walk& walk : parts_->batch.walks()) most = std::max(most, walk.bytes());
  return most;
}

void RandomWalkCuda::run(void* block, void* stream) const {
  WalkQueue queue(device_, stream);
  for (const device::Walk& walk : parts_->batch.walks()) walk.run(queue, block);
}

}  // namespace c2am
