#include "bind.h"
#include "normalize_cam/normalize_cam.h"

namespace c2am {

namespace py = pybind11;
using namespace pybind11::literals;

void bind_normalize_cam(py::module_& m) {
  m.def(
      "normalize_cam",
      [](Address cam, Address out, int64_t maps, int64_t pixels, double eps,
         const std::string& dtype, int threads) {
        py::gil_scoped_release release;
        return with_element(dtype, [&](auto element) {
          using E = decltype(element);
          return normalize_cam_cpu(pointer<const E>(cam), pointer<E>(out), maps, pixels, eps,
                                   threads);
        });
      },
      "cam"_a, "out"_a, "maps"_a, "pixels"_a, py::kw_only(), "eps"_a, "dtype"_a, "threads"_a);
}

}  // namespace c2am
