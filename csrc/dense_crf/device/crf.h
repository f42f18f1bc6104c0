// The mean field of dense_crf.h for several images at once, as steps in the order of a queue:
// `CudaQueue` of dense_crf_cuda.cu, or a loop on the host in a test. A queue has
//   each(n, lanes, body)       body(i, lane) for i below n and lane below `lanes`
//   clear(block, bytes)        zeros
//   sort(corners, count, bits, scratch)   CornersBy by key, stably
//   sum(values, count, scratch)           values[i] = values[0] + ... + values[i]
//   scratch_bytes(corners, values, count, bits)   of those two
//   kTeam                      threads that add up long sums
//   with_team<V>(vectors, f)   f(K, Lanes): how a pixel's vectors of V channels are shared
#pragma once

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "dense_crf/dense_crf.h"
#include "dense_crf/device/hashing.h"
#include "dense_crf/device/sorting.h"
#include "dense_crf/device/update.h"
#include "parts.h"

namespace c2am::device {

struct Copy {
  const uint32_t* from;
  int32_t* to;

  C2AM_HD void operator()(int64_t i, int) const { to[i] = static_cast<int32_t>(from[i]); }
};

// Energies and where the results go; one of these is null.
struct Request {
  const float* unary;  // (images, C, H, W)
  float* marginals;    // (images, C, H, W)
  uint8_t* labels;     // (images, H, W)
  int64_t classes, iterations;
};

// Memory of one inference.
template <typename T>
struct State {
  State(const Lattice& lattice, int width, void* block) : width(width) {
    Parts parts(block);
    for (float** rows : {&relative, &differences, &rows_filtered}) {
      parts.take(*rows, lattice.points * width);
    }
    parts.take(values, (lattice.vertices + 1) * width);
    parts.take(other_values, (lattice.vertices + 1) * width);
    parts.take(partial, lattice.tiles() * 2 * width);
    bytes = parts.bytes();
  }

  int width;
  int64_t bytes;
  float *relative, *differences, *rows_filtered;  // (N, width)
  T *values, *other_values;                       // (M + 1, width)
  float* partial;                                 // (tiles, 2, width)
};

// The kernels of several images of one size. Memory is the caller's, on the device.
class Crf {
 public:
  // hashed: finds vertices with a hash table, not by sorting. Throws std::invalid_argument if keys
  // do not fit.
  Crf(int64_t images, int64_t height, int64_t width, const DenseCrfKernels& kernels, bool hashed)
      : kernels_(kernels),
        hashed_(hashed),
        images_(images),
        height_(height),
        width_(width),
        keys_(keys_of(height, width, kernels)) {
    lattice_.points = images * height * width;
    if (images > most_images(height, width, kernels)) {
      throw std::invalid_argument(
          "dense_crf: the image is too large, or a standard deviation of a kernel too small for a "
          "GPU");
    }
    while (keys_.image * static_cast<uint64_t>(images) > uint64_t{1} << bits_) ++bits_;
  }

  // 0 if not even one fits.
  static int64_t most_images(int64_t height, int64_t width, const DenseCrfKernels& kernels) {
    const Keys keys = keys_of(height, width, kernels);
    if (!(keys.bits < 62)) return 0;
    const int64_t by_key = (int64_t{1} << 62) / static_cast<int64_t>(keys.image);
    const int64_t by_index = (Entry::kFirst - 1) / (height * width * kAxes);
    return std::min(by_key, by_index);
  }

  // Bytes of the blocks that `find`, `build` and `infer` get.
  int64_t points_bytes() const { return Crf(*this).take_points(nullptr); }
  int64_t vertices_bytes(int64_t vertices) const {
    return Crf(*this).take_vertices(vertices, nullptr);
  }
  template <typename Queue>
  int64_t find_bytes(Queue& queue) const {
    return Crf(*this).take_finding(queue, nullptr);
  }
  int64_t build_bytes(int64_t vertices) const {
    Crf sized = *this;
    sized.take_vertices(vertices, nullptr);
    return Building(sized.lattice_, hashed_, nullptr).bytes;
  }
  template <typename T>
  int64_t infer_bytes(int64_t classes) const {
    return State<T>(lattice_, width_for(classes), nullptr).bytes;
  }

  // Finds the vertices of all points, and writes their number. image: (images, H, W, 3). `points`
  // stays, `scratch` until `build` is done.
  template <typename Queue>
  void find(Queue& queue, const uint8_t* image, void* points, void* scratch, int32_t* vertices) {
    take_points(points);
    take_finding(queue, scratch);
    with_way([&](auto& way) {
      queue.each(lattice_.points, 1,
                 Place{image, height(), width(), kernels_.bilateral_sxy, kernels_.bilateral_srgb,
                       keys_, lattice_, way.keys(), way.corners()});
      queue.each(1, 1, Copy{way.find(queue, lattice_.count()), vertices});
    });
  }

  // `block` stays, `scratch` is free afterwards.
  template <typename Queue>
  void build(Queue& queue, int64_t vertices, void* block, void* scratch) {
    take_vertices(vertices, block);
    const Building s(lattice_, hashed_, scratch);
    queue.clear(lattice_.neighbours, kAxes * (vertices + 1) * sizeof(Neighbours));
    with_way([&](auto& way) { way.build(queue, lattice_, keys_, s.vertices); });
    queue.each(lattice_.points, 1, Fill<float>{1, s.ones});
    const float* sums = filter<1>(queue, s.ones, s.sums);
    queue.each(lattice_.points, 1,
               Normalise{lattice_, sums, kGain, kernels_.bilateral_compat, s.norm});
    queue.each(lattice_.count(), 1, ScaleEntries{lattice_, s.norm});
    build_spatial(queue);
  }

  // May be called from several threads.
  template <typename T, typename Queue>
  void infer(Queue& queue, const Request& request, void* scratch) const {
    const int width = width_for(request.classes);
    if (width == 0) {
      only_class(queue, request);
    } else if (width == 1) {
      iterate<1>(queue, request, State<T>(lattice_, width, scratch));
    } else if (width == 2) {
      iterate<2>(queue, request, State<T>(lattice_, width, scratch));
    } else {
      iterate<4>(queue, request, State<T>(lattice_, width, scratch));
    }
  }

  const Lattice& lattice() const { return lattice_; }

 private:
  static constexpr float kGain = 1 / (1 + 0x1p-5f);  // of the blur along kAxes axes

  // What `build` alone needs.
  struct Building {
    Building(const Lattice& lattice, bool hashed, void* block) : sums(lattice, 1, nullptr) {
      Parts parts(block);
      if (hashed) vertices.take(parts, lattice.vertices);
      parts.take(ones, lattice.points);
      parts.take(norm, lattice.points);
      parts.take(sums.values, lattice.vertices + 1);
      parts.take(sums.other_values, lattice.vertices + 1);
      parts.take(sums.partial, lattice.tiles() * 2);
      bytes = parts.bytes();
    }
    int64_t bytes;
    CornersBy<uint64_t> vertices{};  // (M,)
    float *ones, *norm;              // (N,)
    State<float> sums;
  };

  static Keys keys_of(int64_t height, int64_t width, const DenseCrfKernels& kernels) {
    return Keys(Grid(
        image_features(nullptr, height, width, kernels.bilateral_sxy, kernels.bilateral_srgb)));
  }
  static int width_for(int64_t classes) {
    const auto channels = static_cast<int>(classes - 1);
    return channels <= 2 ? channels : (channels + 3) / 4 * 4;
  }
  int32_t height() const { return static_cast<int32_t>(height_); }
  int32_t width() const { return static_cast<int32_t>(width_); }

  int64_t take_points(void* block) {
    Parts parts(block);
    parts.take(lattice_.corner, lattice_.count());
    parts.take(lattice_.weight, lattice_.count());
    parts.take(lattice_.entries, lattice_.count());
    parts.take(lattice_.tile_vertex, lattice_.tiles());
    parts.take(lattice_.scale, lattice_.points);
    spatial_ = {height(),
                width(),
                radius(height_),
                radius(width_),
                static_cast<float>(kernels_.gaussian_compat),
                nullptr,
                nullptr,
                nullptr};
    parts.take(spatial_.taps, taps());
    parts.take(spatial_.down, height_);
    parts.take(spatial_.across, width_);
    return parts.bytes();
  }
  int64_t take_vertices(int64_t vertices, void* block) {
    Parts parts(block);
    lattice_.vertices = vertices;
    parts.take(lattice_.start, vertices + 2);
    parts.take(lattice_.neighbours, kAxes * (vertices + 1));
    return parts.bytes();
  }
  template <typename Queue>
  int64_t take_finding(Queue& queue, void* block) {
    Parts parts(block);
    with_way([&](auto& way) { way.take(parts, queue, lattice_.count(), bits_); });
    return parts.bytes();
  }
  template <typename F>
  void with_way(const F& f) {
    if (hashed_) {
      f(hashing_);
    } else {
      f(sorting_);
    }
  }

  int32_t radius(int64_t extent) const {
    return static_cast<int32_t>(spatial_radius(kernels_.gaussian_sxy, extent));
  }
  int64_t taps() const { return 1 + std::max(radius(height_), radius(width_)); }

  template <typename Queue>
  void build_spatial(Queue& queue) {
    const Spatial& s = spatial_;
    queue.each(taps(), 1, SpatialTaps{kernels_.gaussian_sxy, s.taps});
    queue.each(height_, 1, SpatialNorm{s.taps, s.radius_down, height_, s.down});
    queue.each(width_, 1, SpatialNorm{s.taps, s.radius_across, width_, s.across});
  }

  // The sums of the lattice's kernel, without the gain, on its vertices.
  template <int V, typename T, typename Queue>
  const T* filter(Queue& queue, const float* from, const State<T>& s) const {
    const int64_t tiles = lattice_.tiles(), rows = lattice_.vertices + 1;
    const int lanes = s.width / V;
    queue.each(tiles, lanes, Splat<V, T>{lattice_, from, s.width, s.values, s.partial});
    queue.each(tiles, Queue::kTeam,
               SplatAcross<V, T, Queue::kTeam>{lattice_, s.width, s.partial, s.values});
    T *now = s.values, *next = s.other_values;
    for (int axis = 0; axis < kAxes; ++axis) {
      queue.each(rows, lanes, Blur<V, T>{lattice_.neighbours + axis * rows, now, s.width, next});
      std::swap(now, next);
    }
    return now;
  }

  template <int V, typename T, typename Queue>
  void iterate(Queue& queue, const Request& request, const State<T>& s) const {
    const int64_t points = lattice_.points;
    const auto classes = static_cast<int32_t>(request.classes);
    const int lanes = s.width / V;
    queue.each(points, lanes,
               LoadUnary<V>{request.unary, height() * width(), classes, s.width, s.relative});
    for (int64_t i = 0; i <= request.iterations; ++i) {
      const bool first = i == 0, last = i == request.iterations;
      const T* values = first ? nullptr : filter<V>(queue, s.differences, s);
      if (!first) {
        queue.each(points, lanes, FilterRow<V>{spatial_, s.differences, s.width, s.rows_filtered});
      }
      const Result result{last ? nullptr : s.differences, last ? request.marginals : nullptr,
                          last ? request.labels : nullptr};
      Queue::template with_team<V>(lanes, [&](auto vectors, auto team) {
        queue.each(points, team,
                   Update<V, vectors, team, T>{spatial_, lattice_, s.relative,
                                               first ? nullptr : s.rows_filtered, values, s.width,
                                               classes, result});
      });
    }
  }

  template <typename Queue>
  void only_class(Queue& queue, const Request& request) const {
    if (request.marginals != nullptr) {
      queue.each(lattice_.points, 1, Fill<float>{1, request.marginals});
    } else {
      queue.clear(request.labels, lattice_.points);
    }
  }

  DenseCrfKernels kernels_;
  bool hashed_;
  int64_t images_, height_, width_;
  Keys keys_;
  int bits_ = 0;  // of all keys
  Lattice lattice_{};
  Spatial spatial_{};
  Sorting sorting_;  // one of these two
  Hashing hashing_;
};

}  // namespace c2am::device
