#include "bind.h"
#include "dense_crf/dense_crf_cuda.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace c2am {

void bind_dense_crf_cuda(py::module_& m) {
  const auto kernels = [](double gaussian_sxy, double gaussian_compat, double bilateral_sxy,
                          double bilateral_srgb, double bilateral_compat) {
    return DenseCrfKernels{gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb,
                           bilateral_compat};
  };
  py::class_<DenseCrfKernels>(m, "DenseCrfKernels")
      .def(py::init(kernels), py::kw_only(), "gaussian_sxy"_a, "gaussian_compat"_a,
           "bilateral_sxy"_a, "bilateral_srgb"_a, "bilateral_compat"_a);
  py::class_<DenseCrfCuda>(m, "DenseCrfCuda")
      .def_static("most_images", &DenseCrfCuda::most_images, "height"_a, "width"_a, "kernels"_a)
      .def(py::init<int64_t, int64_t, int64_t, const DenseCrfKernels&, int, bool>(), "images"_a,
           "height"_a, "width"_a, "kernels"_a, py::kw_only(), "device"_a, "hashed"_a)
      .def("points_bytes", &DenseCrfCuda::points_bytes)
      .def("vertices_bytes", &DenseCrfCuda::vertices_bytes, "vertices"_a)
      .def("find_bytes", &DenseCrfCuda::find_bytes)
      .def("build_bytes", &DenseCrfCuda::build_bytes, "vertices"_a)
      .def("infer_bytes", &DenseCrfCuda::infer_bytes, "classes"_a, "half"_a)
      .def(
          "find",
          [](DenseCrfCuda& crf, Address image, Address points, Address scratch, Address vertices,
             Address stream) {
            py::gil_scoped_release release;
            crf.find(pointer<const uint8_t>(image), pointer<void>(points), pointer<void>(scratch),
                     pointer<int32_t>(vertices), pointer<void>(stream));
          },
          "image"_a, py::kw_only(), "points"_a, "scratch"_a, "vertices"_a, "stream"_a)
      .def(
          "build",
          [](DenseCrfCuda& crf, int64_t vertices, Address block, Address scratch, Address stream) {
            py::gil_scoped_release release;
            crf.build(vertices, pointer<void>(block), pointer<void>(scratch),
                      pointer<void>(stream));
          },
          "vertices"_a, py::kw_only(), "block"_a, "scratch"_a, "stream"_a)
      .def(
          "infer",
          [](const DenseCrfCuda& crf, Address unary, Address marginals, Address labels,
             int64_t classes, int64_t iterations, bool half, Address scratch, Address stream) {
            py::gil_scoped_release release;
            crf.infer({pointer<const float>(unary), pointer<float>(marginals),
                       pointer<uint8_t>(labels), classes, iterations},
                      half, pointer<void>(scratch), pointer<void>(stream));
          },
          "unary"_a, py::kw_only(), "marginals"_a, "labels"_a, "classes"_a, "iterations"_a,
          "half"_a, "scratch"_a, "stream"_a);
}

}  // namespace c2am
