// The random walk of random_walk.h as what a GPU's threads do: each struct is one step, called for
// the threads 0 .. n - 1. All images lie in one grid, one below the other with zeros between, so
// that a step of all walks is one launch. Maps lie side by side in fours.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "parts.h"
#include "random_walk/random_walk.h"
#include "vec.h"

namespace c2am::device {

constexpr int kFour = 4;
constexpr int kMostMaps = 128;  // of an image in a grid

// A row of an image.
struct GridRow {
  const float *cam, *edge;  // its first pixel, cam in the first map
  float* out;
  int64_t plane;        // from map to map
  int32_t width, maps;  // 0 between the images
};

struct WalkGrid {
  const GridRow* rows;  // (height,)
  int32_t height, width;
  int64_t stride, begin, size;  // as PaddedGrid

  struct Place {
    GridRow row;
    int32_t x;
    int64_t at;   // in the padded grid
    bool inside;  // whether the image has a pixel there, and the map that is asked for
  };
  C2AM_HD int64_t count() const { return int64_t{height} * width; }
  // i: of `count`; map: of which the image is to have more.
  C2AM_HD Place place(int64_t i, int32_t map = -1) const {
    const int32_t y = static_cast<int32_t>(i) / width, x = static_cast<int32_t>(i) - y * width;
    return {rows[y], x, begin + y * stride + x, x < rows[y].width && map < rows[y].maps};
  }
};

// The pairs of pixels, as distances in the padded grid.
struct WalkPaths {
  int32_t count;
  const int64_t* ends;   // (P,)
  const int32_t* start;  // (P + 1,) pixels start[p] .. start[p + 1] - 1 are on path p
  const int64_t* pixels;
};

// strength[i] = (1 - edge_i)^beta; walls keep their 0.
struct LinkStrength {
  WalkGrid grid;
  float beta;
  float* strength;  // (size,)

  C2AM_HD void operator()(int64_t i, int) const {
    const WalkGrid::Place here = grid.place(i);
    if (here.inside) strength[here.at] = powf(1.0f - here.row.edge[here.x], beta);
  }
};

// Eq. 9: A[i, i+d] = min over the path from i to i+d of strength, one plane per displacement d,
// which is the `p`-th. Elsewhere they keep their 0.
struct Affinity {
  WalkGrid grid;
  WalkPaths paths;
  const float* strength;  // (size,)
  float* planes;          // (P, size)

  C2AM_HD void operator()(int64_t i, int) const {
    const WalkGrid::Place here = grid.place(i % grid.count());
    if (!here.inside) return;
    const auto p = static_cast<int32_t>(i / grid.count());
    float weakest = strength[here.at];
    for (int32_t k = paths.start[p]; k < paths.start[p + 1]; ++k) {
      weakest = fminf(weakest, strength[here.at + paths.pixels[k]]);
    }
    planes[p * grid.size + here.at] = weakest;
  }
};

// Eq. 10: inverse_degree[i] = 1 / D_i, with D_i = 1 + sum_j A[i, j].
struct Degree {
  WalkGrid grid;
  WalkPaths paths;
  const float* planes;    // (P, size)
  float* inverse_degree;  // (size,)

  C2AM_HD void operator()(int64_t i, int) const {
    const WalkGrid::Place here = grid.place(i);
    if (!here.inside) return;
    float degree = 1;
    for (int32_t p = 0; p < paths.count; ++p) {
      const float* plane = planes + p * grid.size + here.at;
      degree += plane[0] + plane[-paths.ends[p]];
    }
    inverse_degree[here.at] = 1 / degree;
  }
};

// The vectors of the walk, each (fours, size, 4).
struct Iterates {
  float *current, *previous, *sum;
};

// current = cam (1 - edge), sum = first * current, for four maps.
struct Start {
  WalkGrid grid;
  Iterates v;
  float first;

  C2AM_HD void operator()(int64_t i, int four) const {
    const WalkGrid::Place here = grid.place(i, kFour * four);
    if (!here.inside) return;
    Vec<kFour> value = Vec<kFour>::of(0);
    for (int32_t j = 0; j < kFour && kFour * four + j < here.row.maps; ++j) {
      const float* cam = here.row.cam + (kFour * four + j) * here.row.plane;
      value.at[j] = cam[here.x] * (1.0f - here.row.edge[here.x]);
    }
    const int64_t at = kFour * (four * grid.size + here.at);
    store(v.current + at, value);
    value.scale(first);
    store(v.sum + at, value);
  }
};

// A term of the recurrence: next = scale * current T - keep * previous, sum += coefficient * next.
struct WalkTerm {
  float scale, keep, coefficient;
};

// Eq. 10, one step of four maps: (x T)_i = x_i + sum_j A_ij (x_j - x_i) / D_i, by a team that
// shares the displacements. `previous` becomes the next vector. In this form rounding does not pile
// up over the steps where links are weak and x_i should stay as it is.
template <int Lanes>
struct Step {
  WalkGrid grid;
  WalkPaths paths;
  const float *planes, *inverse_degree;  // (P, size), (size,)
  Iterates v;
  WalkTerm term;

  C2AM_HD void operator()(int64_t i, int thread) const {
    const int four = thread / Lanes, lane = thread % Lanes;
    const WalkGrid::Place here = grid.place(i, kFour * four);
    if (!here.inside) return;
    const int64_t at = kFour * (four * grid.size + here.at);
    const float* x = v.current + at;
    const Vec<kFour> own = load<kFour>(x);
    Vec<kFour> flow = Vec<kFour>::of(0);
    for (int32_t p = lane; p < paths.count; p += Lanes) {
      const int64_t step = paths.ends[p];
      const float* plane = planes + p * grid.size + here.at;
      add_flow(plane[0], load<kFour>(x + kFour * step), own, flow);
      add_flow(plane[-step], load<kFour>(x - kFour * step), own, flow);
    }
    for (int j = 0; j < kFour; ++j) flow.at[j] = team_sum<Lanes>(flow.at[j]);
    if (lane != 0) return;
    const float share = inverse_degree[here.at];
    Vec<kFour> next = load<kFour>(v.previous + at), sum = load<kFour>(v.sum + at);
    for (int j = 0; j < kFour; ++j) {
      next.at[j] = term.scale * (own.at[j] + share * flow.at[j]) - term.keep * next.at[j];
    }
    sum.add(term.coefficient, next);
    store(v.previous + at, next);
    store(v.sum + at, sum);
  }

 private:
  C2AM_HD static void add_flow(float weight, const Vec<kFour>& other, const Vec<kFour>& own,
                               Vec<kFour>& flow) {
    for (int j = 0; j < kFour; ++j) flow.at[j] += weight * (other.at[j] - own.at[j]);
  }
};

// The images' maps out of the grid.
struct Finish {
  WalkGrid grid;
  const float* result;  // (fours, size, 4)

  C2AM_HD void operator()(int64_t i, int four) const {
    const WalkGrid::Place here = grid.place(i, kFour * four);
    if (!here.inside) return;
    const Vec<kFour> value = load<kFour>(result + kFour * (four * grid.size + here.at));
    for (int32_t j = 0; j < kFour && kFour * four + j < here.row.maps; ++j) {
      here.row.out[(kFour * four + j) * here.row.plane + here.x] = value.at[j];
    }
  }
};

// The walks of some images at once. A queue has
//   each(n, lanes, body)     body(i, lane) for i below n and lane below `lanes`
//   clear(block, bytes)      zeros
//   upload(to, from, count)  from the host's memory
//   kWalkTeam                threads that share the displacements of a pixel
class Walk {
 public:
  Walk(const WalkImage* first, const WalkImage* last, const RandomWalk& walk) : walk_(walk) {
    const int margin = reach(walk.radius);
    int64_t width = 0, maps = 0;
    for (const WalkImage* image = first; image != last; ++image) {
      width = std::max(width, image->width);
      maps = std::max(maps, image->maps);
      add_rows(*image, image == first ? 0 : margin);
    }
    fours_ = (maps + kFour - 1) / kFour;
    const PaddedGrid grid(static_cast<int64_t>(rows_.size()), width, walk.radius);
    grid_.height = static_cast<int32_t>(grid.height);
    grid_.width = static_cast<int32_t>(grid.width);
    grid_.stride = grid.stride;
    grid_.begin = grid.begin;
    grid_.size = grid.size;
    for (const Path& path : path_table(walk.radius)) {
      ends_.push_back(grid.step(path.end));
      for (const Offset& pixel : path.pixels) pixels_.push_back(grid.step(pixel));
      start_.push_back(static_cast<int32_t>(pixels_.size()));
    }
  }

  // Bytes of the block that `run` gets.
  int64_t bytes() const { return Memory(*this, nullptr).bytes; }

  template <typename Queue>
  void run(Queue& queue, void* block) const {
    const Memory m(*this, block);
    queue.upload(m.rows, rows_.data(), count(rows_));
    queue.upload(m.ends, ends_.data(), count(ends_));
    queue.upload(m.start, start_.data(), count(start_));
    queue.upload(m.pixels, pixels_.data(), count(pixels_));
    queue.clear(m.zeros, m.zero_bytes);
    WalkGrid grid = grid_;
    grid.rows = m.rows;
    const WalkPaths paths{static_cast<int32_t>(ends_.size()), m.ends, m.start, m.pixels};
    queue.each(grid.count(), 1, LinkStrength{grid, static_cast<float>(walk_.beta), m.strength});
    queue.each(paths.count * grid.count(), 1, Affinity{grid, paths, m.strength, m.planes});
    queue.each(grid.count(), 1, Degree{grid, paths, m.planes, m.inverse_degree});
    steps(queue, grid, paths, m);
  }

 private:
  struct Memory {
    Memory(const Walk& walk, void* block) {
      Parts parts(block);
      parts.take(rows, count(walk.rows_));
      parts.take(ends, count(walk.ends_));
      parts.take(start, count(walk.start_));
      parts.take(pixels, count(walk.pixels_));
      const int64_t size = walk.grid_.size, before = parts.bytes();
      parts.take(strength, size);
      parts.take(inverse_degree, size);
      parts.take(planes, count(walk.ends_) * size);
      for (float** v : {&iterates.current, &iterates.previous, &iterates.sum}) {
        parts.take(*v, walk.fours_ * size * kFour);
      }
      zeros = strength;
      bytes = parts.bytes();
      zero_bytes = bytes - before;
    }

    GridRow* rows;
    int64_t *ends, *pixels;
    int32_t* start;
    void* zeros;  // from where on all is to be 0
    float *strength, *inverse_degree, *planes;
    Iterates iterates;
    int64_t bytes, zero_bytes;
  };

  template <typename T>
  static int64_t count(const std::vector<T>& values) {
    return static_cast<int64_t>(values.size());
  }

  void add_rows(const WalkImage& image, int margin) {
    rows_.insert(rows_.end(), margin, GridRow{});
    for (int64_t y = 0; y < image.height; ++y) {
      const int64_t offset = y * image.width;
      rows_.push_back({image.cam + offset, image.edge + offset, image.out + offset,
                       image.height * image.width, static_cast<int32_t>(image.width),
                       static_cast<int32_t>(image.maps)});
    }
  }

  // Powers are the recurrence without its second term, of which only the last vector counts.
  template <typename Queue>
  void steps(Queue& queue, const WalkGrid& grid, const WalkPaths& paths, const Memory& m) const {
    const std::vector<double> c = walk_.chebyshev
                                      ? chebyshev_coefficients(walk_.steps, walk_.tolerance)
                                      : std::vector<double>(walk_.steps + 1, 0.0);
    const int64_t n = grid.count();
    const auto fours = static_cast<int>(fours_);
    Iterates v = m.iterates;
    queue.each(n, fours, Start{grid, v, static_cast<float>(c[0])});
    for (size_t k = 1; k < c.size(); ++k) {
      const float keep = walk_.chebyshev && k > 1 ? 1.0f : 0.0f;
      queue.each(n, fours * Queue::kWalkTeam,
                 Step<Queue::kWalkTeam>{grid, paths, m.planes, m.inverse_degree, v,
                                        WalkTerm{1 + keep, keep, static_cast<float>(c[k])}});
      std::swap(v.current, v.previous);
    }
    queue.each(n, fours, Finish{grid, walk_.chebyshev ? v.sum : v.current});
  }

  RandomWalk walk_;
  std::vector<GridRow> rows_;
  int64_t fours_;    // of maps, of the image with the most
  WalkGrid grid_{};  // without its rows
  std::vector<int64_t> ends_, pixels_;
  std::vector<int32_t> start_{0};
};

}  // namespace c2am::device
