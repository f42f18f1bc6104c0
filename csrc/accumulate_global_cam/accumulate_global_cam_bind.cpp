#include "accumulate_global_cam/accumulate_global_cam.h"
#include "bind.h"

namespace c2am {

namespace py = pybind11;
using namespace pybind11::literals;

void bind_accumulate_global_cam(py::module_& m) {
  m.def(
      "accumulate_global_cam",
      [](Address cam, Address class_index, Address total, Address count, int64_t maps,
         int64_t pixels, const std::string& dtype, const std::string& total_dtype, int threads) {
        py::gil_scoped_release release;
        return with_float(dtype, [&](auto element) {
          return with_float(total_dtype, [&](auto sum) {
            using E = decltype(element);
            using T = decltype(sum);
            return accumulate_global_cam_cpu(pointer<const E>(cam),
                                             pointer<const int64_t>(class_index), pointer<T>(total),
                                             pointer<int64_t>(count), maps, pixels, threads);
          });
        });
      },
      "cam"_a, "class_index"_a, "total"_a, "count"_a, "maps"_a, "pixels"_a, py::kw_only(),
      "dtype"_a, "total_dtype"_a, "threads"_a);
}

}  // namespace c2am
