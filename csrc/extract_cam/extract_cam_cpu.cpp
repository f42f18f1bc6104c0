#include <algorithm>
#include <cmath>
#include <vector>

#include "elements.h"
#include "extract_cam/extract_cam.h"

namespace c2am {
namespace {

constexpr int kChannels = 8;  // channels added to a product at a time

// Lanes of an AVX2 register. The compiler keeps wider vectors in memory where it has no wider ones.
template <typename T>
constexpr int kWidth = 32 / sizeof(T);

// Rows of the map in one task: enough for long runs of memory.
int64_t rows_of_task(const CamShape& shape) {
  const int64_t pixels = shape.channels_last ? 32 : 256;
  return (pixels + shape.width - 1) / shape.width;
}

// w . f of the pixels first .. last - 1, in steps of Width, for `classes` rows of weights:
// product (classes, n), features (channels, ...) with a channel every `stride` elements.
template <int Width, int Channels, typename E, typename T>
C2AM_INLINE void add_channels(const E* features, int64_t stride, const T* const* rows,
                              int64_t classes, int64_t channel, T* product, int64_t n,
                              int64_t first, int64_t last) {
  using V = Vector<Width, T>;
  for (int64_t i = first; i + Width <= last; i += Width) {
    V feature[Channels];
    for (int c = 0; c < Channels; ++c) load_wide(feature[c], features + c * stride + i);
    for (int64_t k = 0; k < classes; ++k) {
      V sum;
      load(sum, product + k * n + i);
      for (int c = 0; c < Channels; ++c) sum += rows[k][channel + c] * feature[c];
      store(product + k * n + i, sum);
    }
  }
}

// product[k][i] = sum over the channels of rows[k][c] features[c][i], where the pixels of a channel
// lie side by side.
template <typename E, typename T>
C2AM_INLINE void product_planar_body(const E* features, int64_t stride, int64_t channels,
                                     const T* const* rows, int64_t classes, T* product, int64_t n) {
  std::fill_n(product, classes * n, T{0});
  const int64_t whole = n - n % kWidth<T>;
  int64_t c = 0;
  for (; c + kChannels <= channels; c += kChannels) {
    const E* from = features + c * stride;
    add_channels<kWidth<T>, kChannels>(from, stride, rows, classes, c, product, n, 0, whole);
    add_channels<1, kChannels>(from, stride, rows, classes, c, product, n, whole, n);
  }
  for (; c < channels; ++c) {
    const E* from = features + c * stride;
    add_channels<kWidth<T>, 1>(from, stride, rows, classes, c, product, n, 0, whole);
    add_channels<1, 1>(from, stride, rows, classes, c, product, n, whole, n);
  }
}

template <typename T>
C2AM_INLINE T sum_of_lanes(const Vector<kWidth<T>, T>& vector) {
  T lanes[kWidth<T>];
  store(lanes, vector);
  for (int half = kWidth<T> / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

// The same where the channels of a pixel lie side by side: dot products of a pixel with the weights
// of one class or two, each in four sums that need not wait for each other.
template <int Classes, typename E, typename T>
C2AM_INLINE void dot(const E* pixel, int64_t channels, const T* const* rows, T* totals,
                     int64_t stride) {
  constexpr int width = kWidth<T>;
  using V = Vector<width, T>;
  V sums[Classes][4] = {}, feature, weight;
  int64_t c = 0;
  for (; c + 4 * width <= channels; c += 4 * width) {
    for (int part = 0; part < 4; ++part) {
      load_wide(feature, pixel + c + part * width);
      for (int k = 0; k < Classes; ++k) {
        load(weight, rows[k] + c + part * width);
        sums[k][part] += weight * feature;
      }
    }
  }
  for (int k = 0; k < Classes; ++k) {
    T total = sum_of_lanes<T>((sums[k][0] + sums[k][1]) + (sums[k][2] + sums[k][3]));
    for (int64_t rest = c; rest < channels; ++rest) total += rows[k][rest] * widen(pixel[rest]);
    totals[k * stride] = total;
  }
}

template <typename E, typename T>
C2AM_INLINE void product_channels_last_body(const E* features, int64_t channels,
                                            const T* const* rows, int64_t classes, T* product,
                                            int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const E* pixel = features + i * channels;
    int64_t k = 0;
    for (; k + 2 <= classes; k += 2) dot<2>(pixel, channels, rows + k, product + k * n + i, n);
    if (k < classes) dot<1>(pixel, channels, rows + k, product + k * n + i, n);
  }
}

#define C2AM_PRODUCTS(E, T)                                                                  \
  C2AM_DISPATCH(product_planar,                                                              \
                (const E* features, int64_t stride, int64_t channels, const T* const* rows,  \
                 int64_t classes, T* product, int64_t n),                                    \
                (features, stride, channels, rows, classes, product, n))                     \
  C2AM_DISPATCH(product_channels_last,                                                       \
                (const E* features, int64_t channels, const T* const* rows, int64_t classes, \
                 T* product, int64_t n),                                                     \
                (features, channels, rows, classes, product, n))
C2AM_PRODUCTS(float, float)
C2AM_PRODUCTS(double, double)
C2AM_PRODUCTS(Half, float)
C2AM_PRODUCTS(BFloat16, float)
#undef C2AM_PRODUCTS

// w . f of `n` pixels of a view from `first` on, for the given rows of weights.
template <typename E, typename T>
void product(const E* view, int64_t first, int64_t n, const std::vector<const T*>& rows,
             const CamShape& shape, T* out) {
  const int64_t channels = shape.channels, classes = static_cast<int64_t>(rows.size());
  if (shape.channels_last) {
    product_channels_last(view + first * channels, channels, rows.data(), classes, out, n);
  } else {
    const int64_t stride = shape.height * shape.width;
    product_planar(view + first, stride, channels, rows.data(), classes, out, n);
  }
}

// Eq. 1, of rows of the map: out = relu(product) + mirror(relu(mirrored)), the latter for two
// views. A NaN stays one. Returns whether all products are finite.
template <typename T>
bool merge_rows(const T* product, const T* mirrored, T* out, int64_t rows, int64_t width) {
  bool finite = true;
  for (int64_t y = 0; y < rows; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const T here = product[y * width + x];
      finite &= std::isfinite(here);
      T sum = here < 0 ? T{0} : here;
      if (mirrored != nullptr) {
        const T other = mirrored[y * width + width - 1 - x];
        finite &= std::isfinite(other);
        sum += other < 0 ? T{0} : other;
      }
      out[y * width + x] = sum;
    }
  }
  return finite;
}

// The classes of each image, and the place of its first map.
struct Pairs {
  Pairs(const bool* present, const CamShape& shape) : classes(shape.images), first(shape.images) {
    int64_t count = 0;
    for (int64_t b = 0; b < shape.images; ++b) {
      first[b] = count;
      for (int64_t z = 0; z < shape.classes; ++z) {
        if (present[b * shape.classes + z]) classes[b].push_back(z);
      }
      count += static_cast<int64_t>(classes[b].size());
    }
  }
  std::vector<std::vector<int64_t>> classes;
  std::vector<int64_t> first;
};

}  // namespace

template <typename E, typename T>
bool class_maps_cpu(const E* features, const T* weight, const bool* present, T* maps,
                    const CamShape& shape, int threads) {
  const Pairs pairs(present, shape);
  const int64_t pixels = shape.height * shape.width;
  const int64_t band = rows_of_task(shape);
  const int64_t bands = (shape.height + band - 1) / band;
  bool finite = true;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(&& : finite)
  for (int64_t task = 0; task < shape.images * bands; ++task) {
    const int64_t b = task / bands, y = task % bands * band;
    const int64_t rows = std::min(band, shape.height - y), n = rows * shape.width;
    const int64_t classes = static_cast<int64_t>(pairs.classes[b].size());
    if (classes == 0) continue;
    std::vector<const T*> weights;
    for (const int64_t z : pairs.classes[b]) weights.push_back(weight + z * shape.channels);
    std::vector<T> products(shape.views * classes * n);
    for (int64_t v = 0; v < shape.views; ++v) {
      const E* view = features + (b * shape.views + v) * shape.channels * pixels;
      product(view, y * shape.width, n, weights, shape, products.data() + v * classes * n);
    }
    for (int64_t k = 0; k < classes; ++k) {
      const T* first = products.data() + k * n;
      const T* mirrored = shape.views == 2 ? first + classes * n : nullptr;
      T* out = maps + (pairs.first[b] + k) * pixels + y * shape.width;
      finite = merge_rows(first, mirrored, out, rows, shape.width) && finite;
    }
  }
  return finite;
}

template bool class_maps_cpu(const float*, const float*, const bool*, float*, const CamShape&, int);
template bool class_maps_cpu(const double*, const double*, const bool*, double*, const CamShape&,
                             int);
template bool class_maps_cpu(const Half*, const float*, const bool*, float*, const CamShape&, int);
template bool class_maps_cpu(const BFloat16*, const float*, const bool*, float*, const CamShape&,
                             int);

}  // namespace c2am
