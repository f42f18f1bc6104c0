#include <pybind11/stl.h>

#include <tuple>

#include "bind.h"
#include "label_maps/label_maps.h"

namespace c2am {

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

using ImageTuple =
    std::tuple<Address, std::vector<uint8_t>, Address, int64_t, int64_t, int64_t, int64_t, int64_t>;

std::vector<LabelledImage> images_of(const std::vector<ImageTuple>& tuples) {
  std::vector<LabelledImage> images;
  for (const auto& [maps, labels, out, count, height, width, out_height, out_width] : tuples) {
    images.push_back({pointer<const float>(maps), labels.data(), pointer<uint8_t>(out), count,
                      height, width, out_height, out_width});
  }
  return images;
}

}  // namespace

void bind_label_maps(py::module_& m) {
  m.def(
      "label_maps",
      [](const std::vector<ImageTuple>& images, int64_t stride, float threshold, int threads) {
        py::gil_scoped_release release;
        label_maps_cpu(images_of(images), {stride, threshold}, threads);
      },
      "images"_a, py::kw_only(), "stride"_a, "threshold"_a, "threads"_a);
#ifdef C2AM_WITH_CUDA
  py::class_<LabelMapsCuda>(m, "LabelMapsCuda")
      .def(py::init([](const std::vector<ImageTuple>& images, int64_t stride, float threshold,
                       int device) {
             return new LabelMapsCuda(images_of(images), {stride, threshold}, device);
           }),
           "images"_a, py::kw_only(), "stride"_a, "threshold"_a, "device"_a)
      .def("bytes", &LabelMapsCuda::bytes)
      .def(
          "run",
          [](const LabelMapsCuda& maps, Address block, Address stream) {
            py::gil_scoped_release release;
            maps.run(pointer<void>(block), pointer<void>(stream));
          },
          "block"_a, py::kw_only(), "stream"_a);
#endif
}

}  // namespace c2am
