#include "affinity_loss/affinity_loss.h"
#include "bind.h"
#include "displacement_loss/displacement_loss.h"
#include "path_affinity/path_affinity.h"

namespace c2am {

namespace py = pybind11;
using namespace pybind11::literals;

void bind_pair_ops(py::module_& m) {
  m.def(
      "path_affinity",
      [](Address edge, Address affinity, int64_t batch, int64_t height, int64_t width,
         double radius, const std::string& dtype, int threads) {
        py::gil_scoped_release release;
        with_float(dtype, [&](auto zero) {
          using T = decltype(zero);
          path_affinity_cpu(pointer<const T>(edge), pointer<T>(affinity), batch, height, width,
                            radius, threads);
        });
      },
      "edge"_a, "affinity"_a, "batch"_a, "height"_a, "width"_a, py::kw_only(), "radius"_a,
      "dtype"_a, "threads"_a);
  m.def(
      "path_affinity_backward",
      [](Address grad, Address edge, Address grad_edge, int64_t batch, int64_t height,
         int64_t width, double radius, const std::string& dtype, int threads) {
        py::gil_scoped_release release;
        with_float(dtype, [&](auto zero) {
          using T = decltype(zero);
          path_affinity_backward_cpu(pointer<const T>(grad), pointer<const T>(edge),
                                     pointer<T>(grad_edge), batch, height, width, radius, threads);
        });
      },
      "grad"_a, "edge"_a, "grad_edge"_a, "batch"_a, "height"_a, "width"_a, py::kw_only(),
      "radius"_a, "dtype"_a, "threads"_a);
  // The two losses of a batch of maps have one signature.
  const auto bind_loss = [&](const char* name, const char* maps, auto loss) {
    m.def(
        name,
        [loss](Address values, Address label, Address losses, Address gradients, int64_t batch,
               int64_t height, int64_t width, double radius, const std::string& dtype,
               int threads) {
          py::gil_scoped_release release;
          with_float(dtype, [&](auto zero) {
            using T = decltype(zero);
            loss(pointer<const T>(values), pointer<const T>(label), pointer<T>(losses),
                 pointer<T>(gradients), batch, height, width, radius, threads);
          });
        },
        py::arg(maps), "label"_a, "losses"_a, "gradients"_a, "batch"_a, "height"_a, "width"_a,
        py::kw_only(), "radius"_a, "dtype"_a, "threads"_a);
  };
  bind_loss("affinity_loss", "edge", [](auto... arguments) { affinity_loss_cpu(arguments...); });
  bind_loss("displacement_loss", "displacement",
            [](auto... arguments) { displacement_loss_cpu(arguments...); });
}

}  // namespace c2am
