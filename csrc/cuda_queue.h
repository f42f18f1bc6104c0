// Work for a GPU, in the order in which it is queued. For .cu files.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace c2am {

constexpr int kBlockThreads = 256;

template <typename Body>
__global__ void __launch_bounds__(kBlockThreads) each_kernel(int64_t n, const Body body) {
  const int64_t i = blockIdx.x * int64_t{blockDim.y} + threadIdx.y;
  if (i < n) body(i, static_cast<int>(threadIdx.x));
}

// A stream of a device, which becomes the current one. Errors are std::runtime_error with the op.
class CudaQueue {
 public:
  CudaQueue(const char* op, int device, void* stream)
      : op_(op), stream_(static_cast<cudaStream_t>(stream)) {
    check(cudaSetDevice(device));
  }

  // body(i, lane) for all i below n and lane below `lanes`. The threads of one i are adjacent.
  template <typename Body>
  void each(int64_t n, int lanes, const Body& body) {
    if (n == 0) return;  // which CUDA would not launch
    const dim3 block(lanes, kBlockThreads / lanes);
    const auto blocks = static_cast<unsigned>((n + block.y - 1) / block.y);
    each_kernel<<<blocks, block, 0, stream_>>>(n, body);
    check(cudaGetLastError());
  }

  void clear(void* block, int64_t bytes) { check(cudaMemsetAsync(block, 0, bytes, stream_)); }

  // From the host's memory, which may be freed afterwards.
  template <typename T>
  void upload(T* to, const T* from, int64_t count) {
    check(cudaMemcpyAsync(to, from, count * sizeof(T), cudaMemcpyHostToDevice, stream_));
  }

 protected:
  void check(cudaError_t status) const {
    if (status != cudaSuccess) {
      throw std::runtime_error(std::string(op_) + ": CUDA: " + cudaGetErrorString(status));
    }
  }
  cudaStream_t stream() const { return stream_; }

 private:
  const char* op_;
  cudaStream_t stream_;
};

}  // namespace c2am
