// The dense CRF on a GPU: DenseCrf of dense_crf.h for several images of one size in one call. It
// allocates nothing: every block of device memory is the caller's. A call returns once its work is
// queued on `stream`; CUDA's errors are std::runtime_error.
#pragma once

#include <cstdint>

#include "dense_crf/dense_crf.h"
#include "dense_crf/device/crf.h"

namespace c2am {

class DenseCrfCuda {
 public:
  // The most images that one object can hold; 0 if keys do not fit for one of this size.
  static int64_t most_images(int64_t height, int64_t width, const DenseCrfKernels& kernels);

  // Throws std::invalid_argument for more. device: its index. hashed: finds the lattice's vertices
  // with a hash table, not by sorting.
  DenseCrfCuda(int64_t images, int64_t height, int64_t width, const DenseCrfKernels& kernels,
               int device, bool hashed)
      : crf_(images, height, width, kernels, hashed), device_(device) {}

  int64_t points_bytes() const { return crf_.points_bytes(); }
  int64_t vertices_bytes(int64_t vertices) const { return crf_.vertices_bytes(vertices); }
  int64_t find_bytes() const;
  int64_t build_bytes(int64_t vertices) const { return crf_.build_bytes(vertices); }
  int64_t infer_bytes(int64_t classes, bool half) const;

  // First: finds the lattice's vertices, and writes their number. image: (images, H, W, 3).
  // `points` is to stay, `scratch` until `build` is done.
  void find(const uint8_t* image, void* points, void* scratch, int32_t* vertices, void* stream);
  // Second: `block` is to stay, `scratch` is free after it.
  void build(int64_t vertices, void* block, void* scratch, void* stream);
  // Then any number of these, from any thread. half: store values of vertices in 16 bits.
  void infer(const device::Request& request, bool half, void* scratch, void* stream) const;

 private:
  device::Crf crf_;
  int device_;
};

}  // namespace c2am
