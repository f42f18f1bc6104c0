// Labels of pixels from the class maps of an image at a fraction of its size: with M the maps,
// resized `stride` times as large (bilinear, align_corners=False) and cropped to the image,
//
//   label = the first class with the largest M / max(M) at a pixel, or 0 where that is not above
//           the threshold
//
// max(M) is over the pixels and maps of the image, and no less than 1e-5.
#pragma once

#include <cstdint>
#include <vector>

#ifdef C2AM_WITH_CUDA
#include <memory>
#endif

namespace c2am {

constexpr float kLeastMaximum = 1e-5f;

// count maps (height, width); out is (out_height, out_width), no more than `stride` times as large.
struct LabelledImage {
  const float* maps;
  const uint8_t* labels;  // (count,) of the maps; on the host
  uint8_t* out;
  int64_t count, height, width, out_height, out_width;
};

struct Labelling {
  int64_t stride;
  float threshold;
};

void label_maps_cpu(const std::vector<LabelledImage>& images, const Labelling& labelling,
                    int threads);

#ifdef C2AM_WITH_CUDA
// The same on a GPU, all images in the same launches. Errors of CUDA are std::runtime_error.
class LabelMapsCuda {
 public:
  // device: its index. It becomes the current one of `run`.
  LabelMapsCuda(const std::vector<LabelledImage>& images, const Labelling& labelling, int device);
  ~LabelMapsCuda();

  // Bytes of the block of device memory that `run` gets.
  int64_t bytes() const;
  // Returns once the work is queued on `stream`.
  void run(void* block, void* stream) const;

 private:
  struct Parts;
  int device_;
  std::unique_ptr<const Parts> parts_;
};
#endif

}  // namespace c2am
