// The labels of the CPU's core, and of the functions that a GPU's threads run, against the formula.
#include "label_maps/label_maps.h"

#include <cmath>
#include <cstring>

#include "host_queue.h"
#include "label_maps/device.h"
#include "native.h"

namespace {

struct LabelQueue : native::HostQueue {
  static constexpr int kRowTeam = 1;
};

// A map at a pixel, in float64.
double resized(const c2am::LabelledImage& image, int64_t k, int64_t y, int64_t x, int64_t stride) {
  const auto place = [&](int64_t i, int64_t size) {
    const double at = (static_cast<double>(i) + 0.5) / static_cast<double>(stride) - 0.5;
    return std::fmin(std::fmax(at, 0.0), static_cast<double>(size - 1));
  };
  const double py = place(y, image.height), px = place(x, image.width);
  double sum = 0;
  for (int64_t v = 0; v < image.height; ++v) {
    for (int64_t u = 0; u < image.width; ++u) {
      const double weight = std::fmax(0, 1 - std::abs(py - v)) * std::fmax(0, 1 - std::abs(px - u));
      sum += weight * image.maps[(k * image.height + v) * image.width + u];
    }
  }
  return sum;
}

// Every label is that of a value which is the largest, but for rounding.
void check(const c2am::LabelledImage& image, const c2am::Labelling& labelling) {
  double largest = c2am::kLeastMaximum;
  const auto each = [&](const auto& f) {
    for (int64_t y = 0; y < image.out_height; ++y) {
      for (int64_t x = 0; x < image.out_width; ++x) f(y, x);
    }
  };
  const auto value = [&](int64_t k, int64_t y, int64_t x) {
    return resized(image, k, y, x, labelling.stride);
  };
  each([&](int64_t y, int64_t x) {
    for (int64_t k = 0; k < image.count; ++k) largest = std::fmax(largest, value(k, y, x));
  });
  each([&](int64_t y, int64_t x) {
    const uint8_t label = image.out[y * image.out_width + x];
    double best = labelling.threshold, chosen = label == 0 ? best : NAN;
    for (int64_t k = 0; k < image.count; ++k) {
      const double quotient = value(k, y, x) / largest;
      best = std::fmax(best, quotient);
      if (label == image.labels[k]) chosen = quotient;
    }
    native::check(chosen > best - 1e-5, "label");
  });
}

}  // namespace

NATIVE_TEST(label_maps) {
  const std::vector<std::vector<int64_t>> shapes = {// K, h, w, H, W at stride 4
                                                    {2, 1, 1, 1, 1},
                                                    {3, 5, 7, 17, 28},
                                                    {0, 3, 3, 9, 12},
                                                    {1, 18, 2, 70, 8},
                                                    {21, 3, 17, 12, 65}};
  for (const int64_t stride : {4, 5}) {
    const c2am::Labelling labelling{stride, 0.3f};
    std::vector<std::vector<float>> maps;
    std::vector<std::vector<uint8_t>> labels, outs;
    std::vector<c2am::LabelledImage> images;
    for (const auto& s : shapes) {
      maps.push_back(native::uniform(s[0] * s[1] * s[2], -0.1f, 2, maps.size()));
      labels.emplace_back();
      for (int64_t k = 0; k < s[0]; ++k) labels.back().push_back(static_cast<uint8_t>(5 + 2 * k));
      outs.emplace_back(s[3] * s[4], uint8_t{255});
    }
    for (size_t b = 0; b < shapes.size(); ++b) {
      const auto& s = shapes[b];
      images.push_back(
          {maps[b].data(), labels[b].data(), outs[b].data(), s[0], s[1], s[2], s[3], s[4]});
    }
    std::vector<std::vector<uint8_t>> first;
    for (const int threads : {1, 2, 3}) {
      c2am::label_maps_cpu(images, labelling, threads);
      if (threads == 1) first = outs;
      native::check(outs == first, "depends on the number of threads");
    }
    for (const c2am::LabelledImage& image : images) check(image, labelling);
    for (auto& out : outs) std::fill(out.begin(), out.end(), uint8_t{255});
    const c2am::device::LabelMaps device(images, labelling);
    native::Block block(device.bytes());
    LabelQueue queue;
    device.run(queue, block.data());
    for (const c2am::LabelledImage& image : images) check(image, labelling);
  }
}
