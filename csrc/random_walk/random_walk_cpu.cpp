#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <thread>

#include "buffer.h"
#include "caught.h"
#include "random_walk/random_walk.h"
#include "simd.h"

namespace c2am {
namespace {

constexpr int64_t kTile = 512;  // pixels of a band, about
constexpr int kRows = 2;        // of a block of pixels, computed together; a vector wide
constexpr int kColumns = 16;    // of the widest vector
constexpr int64_t kStepsTogether = 6;

using Floats = Buffer<float>;

// A pixel beside a block: its distance from the block's first row and, for each row of the block,
// the distance of A between the two from the block's place in `links`.
struct Neighbour {
  int64_t step;
  int64_t weight[kRows];
};

// A between a pixel and the ends of its paths, zero where either is a wall. All links of a row of
// the grid lie side by side: `links` is (margin + rows, P + 1, stride), the last of P + 1 zeros.
struct Transition {
  Transition(const PaddedGrid& grid, double radius)
      : grid(grid), paths(path_table(radius)), margin(reach(radius)) {}
  int64_t count() const { return static_cast<int64_t>(paths.size()); }
  int64_t link(int64_t p, int64_t y, int64_t x) const {
    return kColumns + ((margin + y) * (count() + 1) + p) * grid.stride + x;
  }

  PaddedGrid grid;
  std::vector<Path> paths;
  int64_t margin;  // rows of zeros above the grid
  std::vector<Neighbour> neighbours;
  Floats links;
  Floats inverse_degree;  // (size,): 1 / D_i
};

// The vectors of the walk, each (K, size) in the padded grid.
struct Iterates {
  Iterates(int64_t maps, int64_t size)
      : maps(maps),
        size(size),
        values{Floats(maps * size, 0.0f), Floats(maps * size, 0.0f)},
        sum(maps * size, 0.0f) {}
  int64_t maps, size;
  Floats values[2];  // before step n the current one is values[n % 2], the other the previous one
  Floats sum;
};

// A term of the recurrence: next = scale * current T - keep * previous, sum += coefficient * next.
struct Term {
  float scale, keep, coefficient;
};

// values[i] = min over the path of strength[i + offset]; i from 0 to n - 1, rounded up to a vector.
template <int Bytes>
C2AM_INLINE void weakest_link_body(const float* strength, const std::vector<int64_t>& offsets,
                                   float* values, int64_t n) {
  using V = Vector<Bytes / sizeof(float)>;
  for (int64_t i = 0; i < n; i += Bytes / sizeof(float)) {
    V least, other;
    load(least, strength + i);
    for (size_t k = 1; k < offsets.size(); ++k) {
      load(other, strength + i + offsets[k]);
      least = other < least ? other : least;
    }
    store(values + i, least);
  }
}
C2AM_DISPATCH_BYTES(weakest_link,
                    (const float* strength, const std::vector<int64_t>& offsets, float* values,
                     int64_t n),
                    (strength, offsets, values, n))

// Eq. 10, one step of the walk, for a vector of pixels in each row of a block and `Maps` maps:
// (x T)_i = x_i + sum_j A_ij (x_j - x_i) / D_i. In this form rounding does not pile up over the
// steps where links are weak and x_i should stay as it is. Then the term of the recurrence.
template <int Bytes, int Maps>
C2AM_INLINE void advance_block(const Transition& t, Iterates& v, int64_t map, int64_t n,
                               const Term& term, int64_t y, int64_t column) {
  using V = Vector<Bytes / sizeof(float)>;
  const int64_t i = t.grid.index(y, column);
  const float* x = v.values[n % 2].data() + map * v.size + i;
  float* older = v.values[1 - n % 2].data();
  const float* links = t.links.data() + t.link(0, y, column);
  V here[kRows][Maps], flow[kRows][Maps] = {}, weight[kRows], value;
  for (int r = 0; r < kRows; ++r) {
    for (int k = 0; k < Maps; ++k) load(here[r][k], x + k * v.size + r * t.grid.stride);
  }
  for (const Neighbour& neighbour : t.neighbours) {
    for (int r = 0; r < kRows; ++r) load(weight[r], links + neighbour.weight[r]);
    for (int k = 0; k < Maps; ++k) {
      load(value, x + k * v.size + neighbour.step);
      for (int r = 0; r < kRows; ++r) flow[r][k] += weight[r] * (value - here[r][k]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    V inverse_degree, old, total;
    load(inverse_degree, t.inverse_degree.data() + i + r * t.grid.stride);
    for (int k = 0; k < Maps; ++k) {
      const int64_t at = (map + k) * v.size + i + r * t.grid.stride;
      load(old, older + at);
      load(total, v.sum.data() + at);
      old = term.scale * (here[r][k] + inverse_degree * flow[r][k]) - term.keep * old;
      store(older + at, old);
      store(v.sum.data() + at, total + term.coefficient * old);
    }
  }
}

// The same for the rows first .. last - 1 and all maps.
template <int Bytes>
C2AM_INLINE void advance_rows_body(const Transition& t, Iterates& v, int64_t n, const Term& term,
                                   int64_t first, int64_t last) {
  for (int64_t y = first; y < last; y += kRows) {
    for (int64_t column = 0; column < t.grid.width; column += Bytes / sizeof(float)) {
      int64_t map = 0;
      for (; map + 4 <= v.maps; map += 4) advance_block<Bytes, 4>(t, v, map, n, term, y, column);
      if (v.maps - map == 3) advance_block<Bytes, 3>(t, v, map, n, term, y, column);
      if (v.maps - map == 2) advance_block<Bytes, 2>(t, v, map, n, term, y, column);
      if (v.maps - map == 1) advance_block<Bytes, 1>(t, v, map, n, term, y, column);
    }
  }
}
C2AM_DISPATCH_BYTES(advance_rows,
                    (const Transition& t, Iterates& v, int64_t n, const Term& term, int64_t first,
                     int64_t last),
                    (t, v, n, term, first, last))

// Rows of whole blocks, no fewer than the margin.
struct Bands {
  explicit Bands(const Transition& t)
      : grid(t.grid),
        height(std::max((kTile / grid.stride + 1) / kRows * kRows,
                        (t.margin + kRows - 1) / kRows * kRows)),
        count((grid.height + height - 1) / height) {}
  int64_t first(int64_t i) const { return i * height; }
  int64_t last(int64_t i) const { return std::min((i + 1) * height, grid.height); }

  // Calls task(first, last) for every band.
  template <typename Task>
  void each(int threads, const Task& task) const {
    const int team = static_cast<int>(std::min<int64_t>(threads, count));
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t i = 0; i < count; ++i) task(first(i), last(i));
  }

  const PaddedGrid& grid;
  int64_t height, count;
};

// Since x^beta is monotone, (1 - max edge)^beta = min over the path of (1 - edge)^beta.
Floats link_strength(const PaddedGrid& grid, const float* edge, double beta) {
  Floats strength(grid.size, 0.0f);
  for (int64_t y = 0; y < grid.height; ++y) {
    for (int64_t x = 0; x < grid.width; ++x) {
      strength[grid.index(y, x)] =
          std::pow(1.0f - edge[y * grid.width + x], static_cast<float>(beta));
    }
  }
  return strength;
}

void fill_links(Transition& t, const Floats& strength, int threads) {
  std::vector<std::vector<int64_t>> offsets;
  for (const Path& path : t.paths) {
    offsets.emplace_back();
    for (const Offset& o : path.pixels) offsets.back().push_back(t.grid.step(o));
  }
  const int64_t rows = (t.grid.end - t.grid.begin) / t.grid.stride;
  t.links = Floats(t.link(0, rows, 0), 0.0f);
  Bands(t).each(threads, [&](int64_t first, int64_t last) {
    for (int64_t y = first; y < last; ++y) {
      for (int64_t p = 0; p < t.count(); ++p) {
        weakest_link(strength.data() + t.grid.index(y, 0), offsets[p],
                     t.links.data() + t.link(p, y, 0), t.grid.stride);
      }
    }
  });
}

// D_i = 1 + sum_j A_ij.
void fill_degrees(Transition& t, int threads) {
  t.inverse_degree = Floats(t.grid.size, 1.0f);
  Bands(t).each(threads, [&](int64_t first, int64_t last) {
    for (int64_t y = first; y < last; ++y) {
      float* degree = t.inverse_degree.data() + t.grid.index(y, 0);
      for (int64_t p = 0; p < t.count(); ++p) {
        const Offset end = t.paths[p].end;
        const float* ahead = t.links.data() + t.link(p, y, 0);
        const float* behind = t.links.data() + t.link(p, y - end.dy, -end.dx);
        for (int64_t x = 0; x < t.grid.width; ++x) degree[x] += ahead[x] + behind[x];
      }
      for (int64_t x = 0; x < t.grid.width; ++x) degree[x] = 1.0f / degree[x];
    }
  });
}

// A pixel at dy from one row of a block is at dy - 1 from the next: it is loaded once for both.
// Where it is no neighbour of a row, that row's weights are the zeros behind the links.
void fill_neighbours(Transition& t) {
  std::map<std::pair<int, int>, Neighbour> by_offset;
  const int64_t block = t.link(0, 0, 0);
  for (int r = 0; r < kRows; ++r) {
    for (int64_t p = 0; p < t.count(); ++p) {
      const Offset end = t.paths[p].end;
      for (const int sign : {1, -1}) {
        const Offset o{r + sign * end.dy, sign * end.dx};
        Neighbour none{t.grid.step(o), {}};
        std::fill_n(none.weight, kRows, t.link(t.count(), 0, 0) - block);
        Neighbour& neighbour = by_offset.try_emplace({o.dy, o.dx}, none).first->second;
        const int64_t link = sign > 0 ? t.link(p, r, 0) : t.link(p, r - end.dy, -end.dx);
        neighbour.weight[r] = link - block;
      }
    }
  }
  for (const auto& [offset, neighbour] : by_offset) t.neighbours.push_back(neighbour);
}

Transition make_transition(const float* edge, const PaddedGrid& grid, const RandomWalk& walk,
                           int threads) {
  Transition t(grid, walk.radius);
  fill_links(t, link_strength(grid, edge, walk.beta), threads);
  fill_degrees(t, threads);
  fill_neighbours(t);
  return t;
}

// x T^steps = first * x + the sum of the terms. For Chebyshev that is the sum of c_k y_k, where
// y_0 = x, y_1 = x T and y_{k+1} = 2 y_k T - y_{k-1}; else the last of all powers alone.
struct Series {
  explicit Series(const RandomWalk& walk) {
    if (!walk.chebyshev) {
      first = walk.steps == 0 ? 1 : 0;
      for (int64_t k = 1; k <= walk.steps; ++k) terms.push_back({1, 0, k == walk.steps ? 1.0f : 0});
      return;
    }
    const std::vector<double> c = chebyshev_coefficients(walk.steps, walk.tolerance);
    first = static_cast<float>(c[0]);
    for (size_t k = 1; k < c.size(); ++k) {
      terms.push_back({k == 1 ? 1.0f : 2, k == 1 ? 0.0f : 1, static_cast<float>(c[k])});
    }
  }
  float first;
  std::vector<Term> terms;
};

// How many steps each band has taken, for the threads that wait for it.
class Progress {
 public:
  explicit Progress(int64_t bands) : steps_(bands) {}
  void set(int64_t band, int64_t steps) { steps_[band].store(steps, std::memory_order_release); }
  void wait(int64_t band, int64_t steps) const {
    constexpr int kSpins = 2000;  // before another process may have the core
    int spins = 0;
    while (steps_[band].load(std::memory_order_acquire) < steps) {
      if (spins < kSpins) {
        ++spins;
      } else {
        std::this_thread::yield();
      }
    }
  }

 private:
  std::vector<std::atomic<int64_t>> steps_;
};

// Each thread has adjacent bands and takes several steps at a time, each a band behind the one
// before, whose results it needs as far as a margin ahead: the links of a band then come from
// memory once for all of them. Only at its first and its last band it waits, for the thread that
// has the next one. Every other thread goes upward, so that two that meet come there together.
void advance(const Transition& t, Iterates& v, const std::vector<Term>& terms, int threads) {
  const Bands bands(t);
  const auto count = static_cast<int64_t>(terms.size());
  Progress progress(bands.count);
#pragma omp parallel num_threads(static_cast<int>(std::min<int64_t>(threads, bands.count)))
  {
    const int64_t thread = omp_get_thread_num(), team = omp_get_num_threads();
    const int64_t begin = bands.count * thread / team, end = bands.count * (thread + 1) / team;
    for (int64_t n = 0; n < count; n += kStepsTogether) {
      const int64_t last = std::min(n + kStepsTogether, count);
      for (int64_t front = 0; front < end - begin + last - n - 1; ++front) {
        for (int64_t step = n; step < last; ++step) {
          const int64_t place = front - (step - n);
          if (place < 0 || place >= end - begin) continue;
          const int64_t band = thread % 2 == 0 ? begin + place : end - 1 - place;
          if (band == begin && band > 0) progress.wait(band - 1, step);
          if (band == end - 1 && end < bands.count) progress.wait(end, step);
          advance_rows(t, v, step, terms[step], bands.first(band), bands.last(band));
          progress.set(band, step + 1);
        }
      }
    }
  }
}

}  // namespace

void random_walk_cpu(const float* cam, const float* edge, float* out, int64_t maps, int64_t height,
                     int64_t width, const RandomWalk& walk, int threads) {
  const PaddedGrid grid(height, width, walk.radius, kRows, kColumns);
  const Transition t = make_transition(edge, grid, walk, threads);
  const Series series(walk);
  Iterates v(maps, grid.size);
  const int64_t pixels = height * width;
  for (int64_t k = 0; k < maps; ++k) {
    for (int64_t i = 0; i < pixels; ++i) {
      const int64_t at = k * grid.size + grid.index(i / width, i % width);
      v.values[0][at] = cam[k * pixels + i] * (1.0f - edge[i]);
      v.sum[at] = series.first * v.values[0][at];
    }
  }
  advance(t, v, series.terms, threads);
  for (int64_t k = 0; k < maps; ++k) {
    for (int64_t i = 0; i < pixels; ++i) {
      out[k * pixels + i] = v.sum[k * grid.size + grid.index(i / width, i % width)];
    }
  }
}

void random_walk_batch_cpu(const std::vector<WalkImage>& images, const RandomWalk& walk,
                           int threads) {
  const auto count = static_cast<int64_t>(images.size());
  const auto one = [&](const WalkImage& image, int team) {
    random_walk_cpu(image.cam, image.edge, image.out, image.maps, image.height, image.width, walk,
                    team);
  };
  // Not a team of teams: libgomp makes the threads of inner teams anew for every loop.
  if (count < threads) {
    for (const WalkImage& image : images) one(image, threads);
    return;
  }
  std::atomic<int64_t> next{0};
  Caught caught;  // memory may be short
#pragma omp parallel num_threads(threads)
  caught.run([&] {
    for (int64_t i = next++; i < count; i = next++) one(images[i], 1);
  });
  caught.rethrow();
}

}  // namespace c2am
