// The Python module c2am._core: the ops over raw pointers. `c2am/ops` checks dtypes, devices,
// contiguity and shapes before it calls in here, and owns all tensors.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "bind.h"
#include "buffer.h"
#include "dense_crf/dense_crf.h"
#include "dense_crf/mean_field.h"
#include "random_walk/random_walk.h"
#include "simd.h"

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

using c2am::Address;
using c2am::pointer;

c2am::RandomWalk walk_of(double radius, double beta, int64_t steps, bool chebyshev,
                         double tolerance) {
  return {radius, beta, steps, chebyshev, tolerance};
}

void bind_memory(py::module_& m) {
  using Memory = c2am::Buffer<uint8_t>;
  py::class_<Memory>(m, "Memory", py::buffer_protocol())
      .def(py::init<int64_t>(), "bytes"_a)
      .def_buffer([](Memory& memory) { return py::buffer_info(memory.data(), memory.size()); });
}

void bind_dense_crf(py::module_& m) {
  py::class_<c2am::DenseCrf>(m, "DenseCrf")
      .def(py::init([](Address image, int64_t height, int64_t width, double gaussian_sxy,
                       double gaussian_compat, double bilateral_sxy, double bilateral_srgb,
                       double bilateral_compat, bool exact, int threads) {
             const c2am::DenseCrfKernels kernels{gaussian_sxy, gaussian_compat, bilateral_sxy,
                                                 bilateral_srgb, bilateral_compat};
             py::gil_scoped_release release;
             return new c2am::DenseCrf(pointer<const uint8_t>(image), height, width, kernels, exact,
                                       threads);
           }),
           "image"_a, "height"_a, "width"_a, py::kw_only(), "gaussian_sxy"_a, "gaussian_compat"_a,
           "bilateral_sxy"_a, "bilateral_srgb"_a, "bilateral_compat"_a, "exact"_a, "threads"_a)
      .def(
          "run",
          [](const c2am::DenseCrf& crf, Address unary, Address marginals, Address labels,
             int64_t classes, int64_t iterations, bool half, int threads) {
            py::gil_scoped_release release;
            crf.run(pointer<const float>(unary), pointer<float>(marginals),
                    pointer<uint8_t>(labels), classes, iterations, half, threads);
          },
          "unary"_a, py::kw_only(), "marginals"_a, "labels"_a, "classes"_a, "iterations"_a,
          "half"_a, "threads"_a);
}

void bind_mean_field(py::module_& m) {
  const auto add = [](c2am::MeanField& crf, std::unique_ptr<const c2am::Kernel> kernel,
                      int normalization, Address compat, int threads) {
    crf.add(std::move(kernel), static_cast<c2am::Normalization>(normalization),
            pointer<const float>(compat), threads);
  };
  py::class_<c2am::MeanField>(m, "MeanField")
      .def(py::init<int64_t, int64_t>(), "points"_a, "classes"_a)
      .def(
          "add_lattice",
          [add](c2am::MeanField& crf, Address features, int64_t points, int dimension,
                int normalization, Address compat, int threads) {
            py::gil_scoped_release release;
            add(crf,
                c2am::lattice_kernel(pointer<const float>(features), points, dimension, threads),
                normalization, compat, threads);
          },
          "features"_a, "points"_a, "dimension"_a, py::kw_only(), "normalization"_a, "compat"_a,
          "threads"_a)
      .def(
          "add_spatial",
          [add](c2am::MeanField& crf, int64_t height, int64_t width, double sx, double sy,
                int normalization, Address compat, int threads) {
            py::gil_scoped_release release;
            add(crf, c2am::spatial_kernel(height, width, sx, sy), normalization, compat, threads);
          },
          "height"_a, "width"_a, "sx"_a, "sy"_a, py::kw_only(), "normalization"_a, "compat"_a,
          "threads"_a)
      .def(
          "update",
          [](const c2am::MeanField& crf, Address unary, Address marginals, int64_t steps,
             bool started, int threads) {
            py::gil_scoped_release release;
            crf.update(pointer<const float>(unary), pointer<float>(marginals), steps, started,
                       threads);
          },
          "unary"_a, "marginals"_a, py::kw_only(), "steps"_a, "started"_a, "threads"_a)
      .def(
          "messages",
          [](const c2am::MeanField& crf, Address marginals, Address out, int threads) {
            py::gil_scoped_release release;
            crf.messages(pointer<const float>(marginals), pointer<float>(out), threads);
          },
          "marginals"_a, "out"_a, py::kw_only(), "threads"_a);
}

using WalkTuple = std::tuple<Address, Address, Address, int64_t, int64_t, int64_t>;

std::vector<c2am::WalkImage> walk_images(const std::vector<WalkTuple>& images) {
  std::vector<c2am::WalkImage> batch;
  for (const auto& [cam, edge, out, maps, height, width] : images) {
    batch.push_back({pointer<const float>(cam), pointer<const float>(edge), pointer<float>(out),
                     maps, height, width});
  }
  return batch;
}

void bind_random_walk(py::module_& m) {
  m.def(
      "random_walk",
      [](const std::vector<WalkTuple>& images, double radius, double beta, int64_t steps,
         bool chebyshev, double tolerance, int threads) {
        py::gil_scoped_release release;
        c2am::random_walk_batch_cpu(walk_images(images),
                                    walk_of(radius, beta, steps, chebyshev, tolerance), threads);
      },
      "images"_a, py::kw_only(), "radius"_a, "beta"_a, "steps"_a, "chebyshev"_a, "tolerance"_a,
      "threads"_a);
#ifdef C2AM_WITH_CUDA
  py::class_<c2am::RandomWalkCuda>(m, "RandomWalkCuda")
      .def(py::init([](const std::vector<WalkTuple>& images, double radius, double beta,
                       int64_t steps, bool chebyshev, double tolerance, int device) {
             py::gil_scoped_release release;
             return new c2am::RandomWalkCuda(
                 walk_images(images), walk_of(radius, beta, steps, chebyshev, tolerance), device);
           }),
           "images"_a, py::kw_only(), "radius"_a, "beta"_a, "steps"_a, "chebyshev"_a, "tolerance"_a,
           "device"_a)
      .def("bytes", &c2am::RandomWalkCuda::bytes)
      .def(
          "run",
          [](const c2am::RandomWalkCuda& walk, Address block, Address stream) {
            py::gil_scoped_release release;
            walk.run(pointer<void>(block), pointer<void>(stream));
          },
          "block"_a, py::kw_only(), "stream"_a);
#endif
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled core of c2am: raw pointers in, no torch.";
  m.attr("isa") = c2am::isa_name();
#ifdef C2AM_WITH_CUDA
  m.attr("has_cuda") = true;
#else
  m.attr("has_cuda") = false;
#endif
  bind_memory(m);
  bind_dense_crf(m);
  bind_mean_field(m);
#ifdef C2AM_WITH_CUDA
  c2am::bind_dense_crf_cuda(m);
#endif
  bind_random_walk(m);
  c2am::bind_accumulate_global_cam(m);
  c2am::bind_extract_cam(m);
  c2am::bind_front_door_logits(m);
  c2am::bind_label_maps(m);
  c2am::bind_multi_scale_cam(m);
  c2am::bind_normalize_cam(m);
  c2am::bind_pair_ops(m);
}
