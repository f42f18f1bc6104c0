#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>
#include <type_traits>

#include "cuda_queue.h"
#include "dense_crf/dense_crf_cuda.h"

namespace c2am {
namespace {

// What device/crf.h asks of a queue.
class CrfQueue : public CudaQueue {
 public:
  static constexpr int kTeam = 8;

  CrfQueue(int device, void* stream) : CudaQueue("dense_crf", device, stream) {}

  template <typename Key>
  void sort(device::CornersBy<Key>& by, int64_t count, int bits, char* scratch) {
    cub::DoubleBuffer<Key> keys(by.keys, by.other_keys);
    cub::DoubleBuffer<int32_t> corners(by.corners, by.other_corners);
    size_t bytes = sort(nullptr, 0, keys, corners, count, bits);
    sort(scratch, bytes, keys, corners, count, bits);
    by = {keys.Current(), keys.Alternate(), corners.Current(), corners.Alternate()};
  }

  void sum(uint32_t* values, int64_t count, char* scratch) {
    sum(scratch, sum(nullptr, 0, values, count), values, count);
  }

  // CUB only looks at the sizes.
  template <typename Key>
  int64_t scratch_bytes(const device::CornersBy<Key>& by, uint32_t* values, int64_t count,
                        int bits) {
    cub::DoubleBuffer<Key> keys(by.keys, by.other_keys);
    cub::DoubleBuffer<int32_t> corners(by.corners, by.other_corners);
    const size_t of_sort = sort(nullptr, 0, keys, corners, count, bits);
    return static_cast<int64_t>(std::max(of_sort, sum(nullptr, 0, values, count)));
  }

  // As few lanes as take all vectors, one each; more than 32 take two.
  template <int V, int Lanes = 1, typename F>
  static void with_team(int vectors, const F& f) {
    if constexpr (Lanes > 32) {
      f(Constant<2>(), Constant<32>());
    } else if (vectors <= Lanes) {
      f(Constant<1>(), Constant<Lanes>());
    } else if constexpr (V == 4) {
      with_team<V, 2 * Lanes>(vectors, f);
    }
  }

 private:
  template <int N>
  using Constant = std::integral_constant<int, N>;

  // Without scratch these two return the bytes of it that they need. Counts are below 2^31.
  template <typename Key>
  size_t sort(char* scratch, size_t bytes, cub::DoubleBuffer<Key>& keys,
              cub::DoubleBuffer<int32_t>& corners, int64_t count, int bits) {
    check(cub::DeviceRadixSort::SortPairs(scratch, bytes, keys, corners, static_cast<int>(count), 0,
                                          bits, stream()));
    return bytes;
  }
  size_t sum(char* scratch, size_t bytes, uint32_t* values, int64_t count) {
    check(cub::DeviceScan::InclusiveSum(scratch, bytes, values, static_cast<int>(count), stream()));
    return bytes;
  }
};

}  // namespace

int64_t DenseCrfCuda::most_images(int64_t height, int64_t width, const DenseCrfKernels& kernels) {
  return device::Crf::most_images(height, width, kernels);
}

int64_t DenseCrfCuda::find_bytes() const {
  CrfQueue queue(device_, nullptr);
  return crf_.find_bytes(queue);
}

int64_t DenseCrfCuda::infer_bytes(int64_t classes, bool half) const {
  return half ? crf_.infer_bytes<__half>(classes) : crf_.infer_bytes<float>(classes);
}

void DenseCrfCuda::find(const uint8_t* image, void* points, void* scratch, int32_t* vertices,
                        void* stream) {
  CrfQueue queue(device_, stream);
  crf_.find(queue, image, points, scratch, vertices);
}

void DenseCrfCuda::build(int64_t vertices, void* block, void* scratch, void* stream) {
  CrfQueue queue(device_, stream);
  crf_.build(queue, vertices, block, scratch);
}

void DenseCrfCuda::infer(const device::Request& request, bool half, void* scratch,
                         void* stream) const {
  CrfQueue queue(device_, stream);
  if (half) {
    crf_.infer<__half>(queue, request, scratch);
  } else {
    crf_.infer<float>(queue, request, scratch);
  }
}

}  // namespace c2am
