#include "bind.h"
#include "extract_cam/extract_cam.h"

namespace c2am {

namespace py = pybind11;
using namespace pybind11::literals;

void bind_extract_cam(py::module_& m) {
  m.def(
      "class_maps",
      [](Address features, Address weight, Address present, Address maps, int64_t images,
         int64_t views, int64_t channels, int64_t height, int64_t width, int64_t classes,
         bool channels_last, const std::string& dtype, int threads) {
        const CamShape shape{images, views, channels, classes, height, width, channels_last};
        py::gil_scoped_release release;
        return with_element(dtype, [&](auto element) {
          using E = decltype(element);
          return class_maps_cpu(pointer<const E>(features), pointer<const Wide<E>>(weight),
                                pointer<const bool>(present), pointer<Wide<E>>(maps), shape,
                                threads);
        });
      },
      "features"_a, "weight"_a, "present"_a, "maps"_a, "images"_a, "views"_a, "channels"_a,
      "height"_a, "width"_a, py::kw_only(), "classes"_a, "channels_last"_a, "dtype"_a, "threads"_a);
  m.def(
      "resize_maps",
      [](Address maps, Address out, int64_t count, int64_t height, int64_t width,
         int64_t out_height, int64_t out_width, bool add, const std::string& dtype, int threads) {
        py::gil_scoped_release release;
        const auto resize = [&](auto element) {
          using T = decltype(element);
          resize_maps_cpu(pointer<const T>(maps), pointer<T>(out), count, height, width, out_height,
                          out_width, add, threads);
        };
        with_float(dtype, resize);
      },
      "maps"_a, "out"_a, "count"_a, "height"_a, "width"_a, "out_height"_a, "out_width"_a,
      py::kw_only(), "add"_a, "dtype"_a, "threads"_a);
}

}  // namespace c2am
