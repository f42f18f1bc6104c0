#include <algorithm>

#include "extract_cam/resize.h"
#include "label_maps/label_maps.h"
#include "simd.h"

namespace c2am {
namespace {

// Where values / divisor are above the best ones so far, they and `label` take their places.
C2AM_INLINE void take_better_body(const float* values, float divisor, float label, float* best,
                                  float* labels, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float value = values[i] / divisor;
    const bool better = value > best[i];
    best[i] = better ? value : best[i];
    labels[i] = better ? label : labels[i];
  }
}
C2AM_DISPATCH(take_better,
              (const float* values, float divisor, float label, float* best, float* labels,
               int64_t n),
              (values, divisor, label, best, labels, n))

// Some rows of an image.
struct Band {
  const LabelledImage* image;
  size_t number;  // of the image
  int64_t first, last;
};

std::vector<Band> bands_of(const std::vector<LabelledImage>& images) {
  std::vector<Band> bands;
  for (size_t b = 0; b < images.size(); ++b) {
    const int64_t rows = images[b].out_height;
    for (int64_t first = 0; first < rows; first += kRowsOfTask) {
      bands.push_back({&images[b], b, first, std::min(first + kRowsOfTask, rows)});
    }
  }
  return bands;
}

// Calls row(y, k, values) for all maps of each row of a band.
template <typename F>
void each_row(const Band& band, int64_t stride, const F& row) {
  const LabelledImage& image = *band.image;
  const Axis<float> y_axis(image.height, image.height * stride);
  const Axis<float> x_axis(image.width, image.width * stride);
  std::vector<ResizedRows<float>> resized;
  for (int64_t k = 0; k < image.count; ++k) {
    resized.emplace_back(image.maps + k * image.height * image.width, image.width, y_axis, x_axis,
                         image.out_width);
  }
  std::vector<float> values(image.out_width);
  for (int64_t y = band.first; y < band.last; ++y) {
    for (int64_t k = 0; k < image.count; ++k) {
      resized[k].row(y, values.data(), false);
      row(y, k, values);
    }
  }
}

float largest_of(const Band& band, int64_t stride) {
  float largest = 0;
  each_row(band, stride, [&](int64_t, int64_t, const std::vector<float>& values) {
    raise(values.data(), band.image->out_width, &largest);
  });
  return largest;
}

void write_labels(const Band& band, const Labelling& labelling, float divisor) {
  const LabelledImage& image = *band.image;
  const int64_t width = image.out_width;
  std::vector<float> best(width), labels(width);
  std::fill_n(image.out + band.first * width, (band.last - band.first) * width, uint8_t{0});
  each_row(band, labelling.stride, [&](int64_t y, int64_t k, const std::vector<float>& values) {
    if (k == 0) {
      std::fill(best.begin(), best.end(), labelling.threshold);
      std::fill(labels.begin(), labels.end(), 0.0f);
    }
    take_better(values.data(), divisor, image.labels[k], best.data(), labels.data(), width);
    if (k == image.count - 1) std::copy(labels.begin(), labels.end(), image.out + y * width);
  });
}

}  // namespace

void label_maps_cpu(const std::vector<LabelledImage>& images, const Labelling& labelling,
                    int threads) {
  const std::vector<Band> bands = bands_of(images);
  const auto count = static_cast<int64_t>(bands.size());
  std::vector<float> of_band(count), largest(images.size(), kLeastMaximum);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < count; ++i) of_band[i] = largest_of(bands[i], labelling.stride);
  for (int64_t i = 0; i < count; ++i) {
    largest[bands[i].number] = std::max(largest[bands[i].number], of_band[i]);
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < count; ++i) write_labels(bands[i], labelling, largest[bands[i].number]);
}

}  // namespace c2am
