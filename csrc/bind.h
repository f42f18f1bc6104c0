// Shared by the files that bind an op to Python: each op has one, <op>/<op>_bind.cpp.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "elements.h"

namespace c2am {

using Address = uintptr_t;  // tensor.data_ptr()

template <typename T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

// Calls f(E{}) with the element type of that name, of all four or of the two that are not halves.
template <typename F>
auto with_element(const std::string& dtype, const F& f) {
  if (dtype == "float32") return f(float{});
  if (dtype == "float64") return f(double{});
  if (dtype == "float16") return f(Half{});
  if (dtype == "bfloat16") return f(BFloat16{});
  throw std::invalid_argument("dtype is " + dtype);
}

template <typename F>
auto with_float(const std::string& dtype, const F& f) {
  if (dtype == "float32") return f(float{});
  if (dtype == "float64") return f(double{});
  throw std::invalid_argument("dtype is " + dtype);
}

void bind_accumulate_global_cam(pybind11::module_& m);
void bind_dense_crf_cuda(pybind11::module_& m);  // where there is CUDA
void bind_extract_cam(pybind11::module_& m);
void bind_front_door_logits(pybind11::module_& m);
void bind_label_maps(pybind11::module_& m);
void bind_multi_scale_cam(pybind11::module_& m);
void bind_normalize_cam(pybind11::module_& m);
void bind_pair_ops(pybind11::module_& m);  // path_affinity, affinity_loss, displacement_loss

}  // namespace c2am
