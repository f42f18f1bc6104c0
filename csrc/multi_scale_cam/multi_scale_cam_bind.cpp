#include <pybind11/stl.h>

#include <tuple>

#include "bind.h"
#include "multi_scale_cam/multi_scale_cam.h"

namespace c2am {

namespace py = pybind11;
using namespace pybind11::literals;

void bind_multi_scale_cam(py::module_& m) {
  m.def(
      "multi_scale_cam",
      [](const std::vector<std::tuple<Address, int64_t, int64_t>>& scales, Address out,
         int64_t count, int64_t height, int64_t width, int64_t kept_height, int64_t kept_width,
         double eps, const std::string& dtype, int threads) {
        py::gil_scoped_release release;
        with_float(dtype, [&](auto element) {
          using T = decltype(element);
          std::vector<ScaleMaps<T>> maps;
          for (const auto& [address, rows, columns] : scales) {
            maps.push_back({pointer<const T>(address), rows, columns});
          }
          multi_scale_cam_cpu(maps, pointer<T>(out), count,
                              {height, width, kept_height, kept_width}, eps, threads);
        });
      },
      "scales"_a, "out"_a, "count"_a, "height"_a, "width"_a, "kept_height"_a, "kept_width"_a,
      py::kw_only(), "eps"_a, "dtype"_a, "threads"_a);
}

}  // namespace c2am
