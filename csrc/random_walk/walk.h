// The order of the steps of device.h and tiles.h. A queue has
//   each(n, lanes, body)            body(i, lane) for i below n and lane below `lanes`
//   together(blocks, bytes, walk)   a TiledWalk by teams with `bytes` of memory, all at once
//   clear(block, bytes)             zeros
//   upload(to, from, count)         from the host's memory
//   kWalkTeam                       threads that share the displacements of a pixel
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "parts.h"
#include "random_walk/random_walk.h"
#include "random_walk/tiles.h"

namespace c2am::device {

constexpr int64_t kMostMaps = 128;  // of an image in a grid

inline int64_t fours_of(int64_t maps) { return (maps + kFour - 1) / kFour; }

// The walks of some images, which lie in one grid. Memory is the caller's, on the device.
class Walk {
 public:
  Walk(const WalkImage* first, const WalkImage* last, const RandomWalk& walk,
       const TileLimits& limits)
      : walk_(walk) {
    const int margin = reach(walk.radius);
    int64_t width = 0, maps = 0;
    for (const WalkImage* image = first; image != last; ++image) {
      width = std::max(width, image->width);
      maps = std::max(maps, image->maps);
      add_rows(*image, image == first ? 0 : margin);
    }
    fours_ = fours_of(maps);
    const PaddedGrid grid(count(rows_), width, walk.radius);
    grid_.height = static_cast<int32_t>(grid.height);
    grid_.width = static_cast<int32_t>(grid.width);
    grid_.stride = grid.stride;
    grid_.begin = grid.begin;
    grid_.size = grid.size;
    const std::vector<Path> paths = path_table(walk.radius);
    tiling_ = choose_tiling(grid.height, width, fours_, margin, count(paths), limits);
    for (const Path& path : paths) {
      ends_.push_back(grid.step(path.end));
      cell_ends_.push_back(path.end.dy * tiling_.stride() + path.end.dx);
      for (const Offset& pixel : path.pixels) pixels_.push_back(grid.step(pixel));
      start_.push_back(static_cast<int32_t>(pixels_.size()));
    }
    add_terms();
  }

  // Whether all steps are one launch.
  bool tiled() const { return tiling_.rows > 0; }
  const Tiling& tiling() const { return tiling_; }
  // Bytes of the block that `run` gets.
  int64_t bytes() const { return Memory(*this, nullptr).bytes; }

  template <typename Queue>
  void run(Queue& queue, void* block) const {
    const Memory m(*this, block);
    queue.upload(m.rows, rows_.data(), count(rows_));
    queue.upload(m.ends, ends_.data(), count(ends_));
    queue.upload(m.cell_ends, cell_ends_.data(), count(cell_ends_));
    queue.upload(m.start, start_.data(), count(start_));
    queue.upload(m.pixels, pixels_.data(), count(pixels_));
    queue.upload(m.terms, terms_.data(), count(terms_));
    queue.clear(m.zeros, m.zero_bytes);
    WalkGrid grid = grid_;
    grid.rows = m.rows;
    const WalkPaths paths{static_cast<int32_t>(ends_.size()), m.ends, m.start, m.pixels};
    queue.each(grid.count(), 1, LinkStrength{grid, static_cast<float>(walk_.beta), m.strength});
    queue.each(paths.count * grid.count(), 1, Affinity{grid, paths, m.strength, m.planes});
    queue.each(grid.count(), 1, Degree{grid, paths, m.planes, m.inverse_degree});
    const auto fours = static_cast<int>(fours_);
    queue.each(grid.count(), fours, Start{grid, m.iterates, first_});
    const Iterates end = tiled() ? tiles(queue, grid, paths, m) : steps(queue, grid, paths, m);
    queue.each(grid.count(), fours, Finish{grid, walk_.chebyshev ? end.sum : end.current});
  }

 private:
  struct Memory {
    Memory(const Walk& walk, void* block) {
      Parts parts(block);
      parts.take(rows, count(walk.rows_));
      parts.take(ends, count(walk.ends_));
      parts.take(cell_ends, count(walk.cell_ends_));
      parts.take(start, count(walk.start_));
      parts.take(pixels, count(walk.pixels_));
      parts.take(terms, count(walk.terms_));
      const int64_t size = walk.grid_.size, values = walk.fours_ * size * kFour;
      for (float** v : {&other.current, &other.previous}) {
        parts.take(*v, walk.tiled() ? values : 0);
      }
      const int64_t before = parts.bytes();
      parts.take(strength, size);
      parts.take(inverse_degree, size);
      parts.take(planes, count(walk.ends_) * size);
      for (float** v : {&iterates.current, &iterates.previous, &iterates.sum}) {
        parts.take(*v, values);
      }
      other.sum = iterates.sum;
      zeros = strength;
      bytes = parts.bytes();
      zero_bytes = bytes - before;
    }

    GridRow* rows;
    int64_t *ends, *pixels;
    int32_t *cell_ends, *start;
    WalkTerm* terms;
    Iterates other;  // of TiledWalk
    void* zeros;     // from where on all is to be 0
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
  void add_terms() {
    const std::vector<double> c = walk_.chebyshev
                                      ? chebyshev_coefficients(walk_.steps, walk_.tolerance)
                                      : std::vector<double>(walk_.steps + 1, 0.0);
    first_ = static_cast<float>(c[0]);
    for (size_t k = 1; k < c.size(); ++k) {
      const float keep = walk_.chebyshev && k > 1 ? 1.0f : 0.0f;
      terms_.push_back({1 + keep, keep, static_cast<float>(c[k])});
    }
  }

  // One launch. Returns the last vectors.
  template <typename Queue>
  Iterates tiles(Queue& queue, const WalkGrid& grid, const WalkPaths& paths,
                 const Memory& m) const {
    const TiledWalk walk{grid,
                         paths,
                         tiling_,
                         m.cell_ends,
                         m.planes,
                         m.inverse_degree,
                         {m.iterates, m.other},
                         m.terms,
                         static_cast<int32_t>(terms_.size())};
    if (walk.exchanges() > 0) {
      queue.together(tiling_.blocks(), TileMemory::bytes(tiling_, paths.count), walk);
    }
    return walk.after(walk.exchanges());
  }

  // A launch for each step, of which the host queues the next while the GPU still computes: a graph
  // of them would have to be built for each call. Returns the last vectors.
  template <typename Queue>
  Iterates steps(Queue& queue, const WalkGrid& grid, const WalkPaths& paths,
                 const Memory& m) const {
    Iterates v = m.iterates;
    for (const WalkTerm& term : terms_) {
      queue.each(grid.count(), static_cast<int>(fours_) * Queue::kWalkTeam,
                 Step<Queue::kWalkTeam>{grid, paths, m.planes, m.inverse_degree, v, term});
      std::swap(v.current, v.previous);
    }
    return v;
  }

  RandomWalk walk_;
  std::vector<GridRow> rows_;
  int64_t fours_;    // of maps, of the image with the most
  WalkGrid grid_{};  // without its rows
  Tiling tiling_{};
  std::vector<int64_t> ends_, pixels_;
  std::vector<int32_t> cell_ends_, start_{0};
  float first_;  // coefficient of the sum
  std::vector<WalkTerm> terms_;
};

// Images of a batch, some to a walk: as many of similar width as have a tiling together. Those that
// have none alone share launches up to kMostPixels, so that their planes stay in the cache of a
// large GPU.
class Batch {
 public:
  static constexpr int64_t kMostPixels = 1 << 18;

  Batch(const std::vector<WalkImage>& images, const RandomWalk& walk, const TileLimits& limits)
      : walk_(walk), limits_(limits), paths_(path_table(walk.radius).size()) {
    for (const WalkImage& image : images) split(image);
    std::stable_sort(pieces_.begin(), pieces_.end(), [](const WalkImage& a, const WalkImage& b) {
      return std::pair(fours_of(a.maps), a.width) > std::pair(fours_of(b.maps), b.width);
    });
    for (size_t first = 0, last = 0; first < pieces_.size(); first = last) {
      last = end_of_group(first);
      walks_.emplace_back(pieces_.data() + first, pieces_.data() + last, walk, limits);
    }
  }

  const std::vector<Walk>& walks() const { return walks_; }

 private:
  bool has_tiling(int64_t height, int64_t width, int64_t maps) const {
    const int margin = reach(walk_.radius);
    return choose_tiling(height, width, fours_of(maps), margin, paths_, limits_).rows > 0;
  }

  // Maps of one image that are walked together: as many as have a tiling.
  void split(WalkImage image) {
    const int64_t all = image.maps, pixels = image.height * image.width;
    int64_t most = kMostMaps;
    if (has_tiling(image.height, image.width, 1)) {
      while (!has_tiling(image.height, image.width, std::min(most, all))) most -= kFour;
    }
    for (int64_t map = 0; map < all; map += most) {
      image.maps = std::min(all - map, most);
      pieces_.push_back(image);
      image.cam += most * pixels;
      image.out += most * pixels;
    }
  }

  // The first has the most maps and of these the largest width. In tiles all have as many fours of
  // maps, since each tile of the grid takes a block for each four.
  size_t end_of_group(size_t first) const {
    const WalkImage& widest = pieces_[first];
    const int64_t margin = reach(walk_.radius);
    const bool tiled = has_tiling(widest.height, widest.width, widest.maps);
    int64_t rows = widest.height;
    size_t last = first + 1;
    for (; last < pieces_.size(); ++last) {
      rows += margin + pieces_[last].height;
      const int64_t width = std::max(widest.width, pieces_[last].width);
      if (tiled ? fours_of(pieces_[last].maps) != fours_of(widest.maps) ||
                      !has_tiling(rows, width, widest.maps)
                : rows * (width + margin) > kMostPixels ||
                      has_tiling(pieces_[last].height, pieces_[last].width, pieces_[last].maps)) {
        break;
      }
    }
    return last;
  }

  RandomWalk walk_;
  TileLimits limits_;
  int64_t paths_;
  std::vector<WalkImage> pieces_;
  std::vector<Walk> walks_;
};

}  // namespace c2am::device
