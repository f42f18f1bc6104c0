// The labels of label_maps.h as what a GPU's threads do: each struct is one step, called for rows
// of pixels of all images, by a team whose lanes take every Lanes-th pixel.
#pragma once

#include <vector>

#include "label_maps/label_maps.h"
#include "parts.h"
#include "vec.h"

namespace c2am::device {

// Where a sample lies along an axis: between two places, at `fraction` of the way.
struct Sample {
  int32_t low, high;
  float fraction;
};
C2AM_HD Sample sample(int32_t i, int32_t size, int32_t stride) {
  const int32_t place = 2 * i + 1 - stride;  // (i + 1/2) / stride - 1/2, times 2 stride
  if (place <= 0) return {0, 0, 0};
  const int32_t low = place / (2 * stride);
  if (low >= size - 1) return {size - 1, size - 1, 0};
  return {low, low + 1,
          static_cast<float>(place - 2 * stride * low) / static_cast<float>(2 * stride)};
}

// Raises a number above or equal to 0, which other threads may raise too.
C2AM_HD void raise_to(float* number, float value) {
#ifdef __CUDA_ARCH__
  // Numbers from 0 on are in the order of their bits.
  atomicMax(reinterpret_cast<int*>(number), __float_as_int(value));
#else
  *number = *number < value ? value : *number;
#endif
}

// An image as the device has it.
struct ImageToLabel {
  const float* maps;
  uint8_t* out;
  int64_t first_row, first_label;  // of those of all images
  int32_t count, height, width, out_width;
};

struct RowsToLabel {
  const ImageToLabel* images;
  const uint8_t* labels;
  int32_t count;
  int32_t stride;
  float* largest;  // (count,) of each image, 0 at first

  // The image of a row.
  C2AM_HD int32_t image_of(int64_t row) const {
    int32_t low = 0, high = count - 1;
    while (low < high) {
      const int32_t middle = low + (high - low + 1) / 2;
      const bool beyond = images[middle].first_row > row;
      low = beyond ? low : middle;
      high = beyond ? middle - 1 : high;
    }
    return low;
  }
};

// A map at a pixel.
C2AM_HD float resized(const float* map, int32_t width, const Sample& y, const Sample& x) {
  const float *above = map + int64_t{y.low} * width, *below = map + int64_t{y.high} * width;
  const float rest = 1 - x.fraction;
  const float upper = above[x.low] * rest + above[x.high] * x.fraction;
  const float lower = below[x.low] * rest + below[x.high] * x.fraction;
  return upper * (1 - y.fraction) + lower * y.fraction;
}

template <int Lanes>
struct FindLargest {
  RowsToLabel rows;

  C2AM_HD void operator()(int64_t row, int lane) const {
    const int32_t b = rows.image_of(row);
    const ImageToLabel image = rows.images[b];
    const Sample y = sample(static_cast<int32_t>(row - image.first_row), image.height, rows.stride);
    float largest = 0;
    for (int32_t column = lane; column < image.out_width; column += Lanes) {
      const Sample x = sample(column, image.width, rows.stride);
      for (int32_t k = 0; k < image.count; ++k) {
        const float* map = image.maps + int64_t{k} * image.height * image.width;
        largest = fmaxf(largest, resized(map, image.width, y, x));
      }
    }
    largest = team_max<Lanes>(largest);
    if (lane == 0) raise_to(rows.largest + b, largest);
  }
};

template <int Lanes>
struct WriteLabels {
  RowsToLabel rows;
  float threshold;

  C2AM_HD void operator()(int64_t row, int lane) const {
    const int32_t b = rows.image_of(row);
    const ImageToLabel image = rows.images[b];
    const int64_t y_out = row - image.first_row;
    const Sample y = sample(static_cast<int32_t>(y_out), image.height, rows.stride);
    const float divisor = fmaxf(rows.largest[b], kLeastMaximum);
    for (int32_t column = lane; column < image.out_width; column += Lanes) {
      const Sample x = sample(column, image.width, rows.stride);
      float best = threshold;
      uint8_t label = 0;
      for (int32_t k = 0; k < image.count; ++k) {
        const float* map = image.maps + int64_t{k} * image.height * image.width;
        const float value = resized(map, image.width, y, x) / divisor;
        if (value > best) best = value, label = rows.labels[image.first_label + k];
      }
      image.out[y_out * image.out_width + column] = label;
    }
  }
};

// The order of the steps. A queue is as for Walk of random_walk/walk.h, with
//   kRowTeam   threads that share a row
class LabelMaps {
 public:
  LabelMaps(const std::vector<LabelledImage>& images, const Labelling& labelling)
      : labelling_(labelling) {
    for (const LabelledImage& image : images) {
      images_.push_back({image.maps, image.out, rows_, static_cast<int64_t>(labels_.size()),
                         static_cast<int32_t>(image.count), static_cast<int32_t>(image.height),
                         static_cast<int32_t>(image.width), static_cast<int32_t>(image.out_width)});
      labels_.insert(labels_.end(), image.labels, image.labels + image.count);
      rows_ += image.out_height;
    }
  }

  int64_t bytes() const { return Memory(*this, nullptr).bytes; }

  template <typename Queue>
  void run(Queue& queue, void* block) const {
    const Memory m(*this, block);
    queue.upload(m.images, images_.data(), count());
    queue.upload(m.labels, labels_.data(), static_cast<int64_t>(labels_.size()));
    queue.clear(m.largest, count() * sizeof(float));
    const RowsToLabel rows{m.images, m.labels, static_cast<int32_t>(count()),
                           static_cast<int32_t>(labelling_.stride), m.largest};
    constexpr int kTeam = Queue::kRowTeam;
    queue.each(rows_, kTeam, FindLargest<kTeam>{rows});
    queue.each(rows_, kTeam, WriteLabels<kTeam>{rows, labelling_.threshold});
  }

 private:
  struct Memory {
    Memory(const LabelMaps& of, void* block) {
      Parts parts(block);
      parts.take(images, of.count());
      parts.take(labels, static_cast<int64_t>(of.labels_.size()));
      parts.take(largest, of.count());
      bytes = parts.bytes();
    }
    ImageToLabel* images;
    uint8_t* labels;
    float* largest;
    int64_t bytes;
  };

  int64_t count() const { return static_cast<int64_t>(images_.size()); }

  Labelling labelling_;
  int64_t rows_ = 0;  // of pixels, of all images
  std::vector<ImageToLabel> images_;
  std::vector<uint8_t> labels_;
};

}  // namespace c2am::device
