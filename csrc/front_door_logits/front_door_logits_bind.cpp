#include "bind.h"
#include "front_door_logits/front_door_logits.h"

namespace c2am {

namespace py = pybind11;
using namespace pybind11::literals;

namespace {

Pooling pooling_of(const std::string& name) {
  if (name == "mean") return Pooling::mean;
  if (name == "max") return Pooling::max;
  if (name == "lse") return Pooling::lse;
  throw std::invalid_argument("pooling is " + name);
}

}  // namespace

void bind_front_door_logits(py::module_& m) {
  m.def(
      "front_door_logits",
      [](Address logits, Address global_cam, Address score, Address slope, int64_t batch,
         int64_t classes, int64_t pixels, const std::string& pooling, double gamma, bool sigmoid,
         const std::string& dtype, int threads) {
        const FrontDoor front_door{pooling_of(pooling), gamma, sigmoid};
        py::gil_scoped_release release;
        return with_float(dtype, [&](auto element) {
          using T = decltype(element);
          return front_door_logits_cpu(pointer<const T>(logits), pointer<const T>(global_cam),
                                       pointer<T>(score), pointer<T>(slope), batch, classes, pixels,
                                       front_door, threads);
        });
      },
      "logits"_a, "global_cam"_a, "score"_a, "slope"_a, "batch"_a, "classes"_a, "pixels"_a,
      py::kw_only(), "pooling"_a, "gamma"_a, "sigmoid"_a, "dtype"_a, "threads"_a);
}

}  // namespace c2am
