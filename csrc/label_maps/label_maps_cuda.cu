#include "cuda_queue.h"
#include "label_maps/device.h"

namespace c2am {
namespace {

class LabelQueue : public CudaQueue {
 public:
  static constexpr int kRowTeam = 32;

  LabelQueue(int device, void* stream) : CudaQueue("label_maps", device, stream) {}
};

}  // namespace

struct LabelMapsCuda::Parts {
  device::LabelMaps maps;
};

LabelMapsCuda::LabelMapsCuda(const std::vector<LabelledImage>& images, const Labelling& labelling,
                             int device)
    : device_(device), parts_(new Parts{device::LabelMaps(images, labelling)}) {}

LabelMapsCuda::~LabelMapsCuda() = default;

int64_t LabelMapsCuda::bytes() const { return parts_->maps.bytes(); }

void LabelMapsCuda::run(void* block, void* stream) const {
  LabelQueue queue(device_, stream);
  parts_->maps.run(queue, block);
}

}  // namespace c2am
