#include <algorithm>
#include <cmath>

#include "random_walk/random_walk.h"
#include "simd.h"

namespace c2am {
namespace {

constexpr int64_t kTile = 2048;  // pixels of one task; its rows of A stay in the L2 cache

struct Transition {
  PaddedGrid grid;
  std::vector<Path> paths;
  std::vector<int64_t> steps;         // (P,) distance of a neighbour in the padded grid
  std::vector<float> planes;          // (P, size): A[i, i + steps[p]], zero where either is a wall
  std::vector<float> inverse_degree;  // (size,): 1 / D_i, zero in the margin
};

// values[i] = min over the path of strength[i + offset]; i from 0 to n - 1.
C2AM_INLINE void weakest_link_body(const float* strength, const int64_t* offsets, int count,
                                   float* values, int64_t n) {
  std::copy(strength + offsets[0], strength + offsets[0] + n, values);
  for (int k = 1; k < count; ++k) {
    const float* other = strength + offsets[k];
    for (int64_t i = 0; i < n; ++i) values[i] = other[i] < values[i] ? other[i] : values[i];
  }
}
C2AM_DISPATCH(weakest_link,
              (const float* strength, const int64_t* offsets, int count, float* values, int64_t n),
              (strength, offsets, count, values, n))

// Eq. 10, one step of the walk, for the pixels first .. last - 1 of the padded grid:
// out[i - first] = (x T)_i = x_i + sum_j A_ij (x_j - x_i) / D_i. In this form rounding does not
// pile up over the steps where links are weak and x_i should stay as it is.
C2AM_INLINE void step_body(const float* planes, int64_t size, const int64_t* steps, int count,
                           const float* inverse_degree, const float* x, float* out, int64_t first,
                           int64_t last) {
  using V = Vector<16>;
  int64_t i = first;
  for (; i + 16 <= last; i += 16) {
    V here, weight, value, flow = {};
    load(here, x + i);
    for (int p = 0; p < count; ++p) {
      const float* plane = planes + p * size + i;
      load(weight, plane);
      load(value, x + i + steps[p]);
      flow += weight * (value - here);
      load(weight, plane - steps[p]);
      load(value, x + i - steps[p]);
      flow += weight * (value - here);
    }
    load(weight, inverse_degree + i);
    store(out + (i - first), here + weight * flow);
  }
  for (; i < last; ++i) {
    float flow = 0;
    for (int p = 0; p < count; ++p) {
      const float* plane = planes + p * size + i;
      flow += plane[0] * (x[i + steps[p]] - x[i]) + plane[-steps[p]] * (x[i - steps[p]] - x[i]);
    }
    out[i - first] = x[i] + inverse_degree[i] * flow;
  }
}
C2AM_DISPATCH(step,
              (const float* planes, int64_t size, const int64_t* steps, int count,
               const float* inverse_degree, const float* x, float* out, int64_t first,
               int64_t last),
              (planes, size, steps, count, inverse_degree, x, out, first, last))

// Calls task(first, last) for every tile of the padded rows.
template <typename Task>
void for_tiles(const PaddedGrid& grid, int threads, const Task& task) {
  const int64_t tiles = (grid.end - grid.begin + kTile - 1) / kTile;
  const int team = static_cast<int>(std::min<int64_t>(threads, tiles));
#pragma omp parallel for num_threads(team) schedule(static)
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const int64_t first = grid.begin + tile * kTile;
    task(first, std::min(first + kTile, grid.end));
  }
}

// Since x^beta is monotone, (1 - max edge)^beta = min over the path of (1 - edge)^beta.
std::vector<float> link_strength(const PaddedGrid& grid, const float* edge, double beta) {
  std::vector<float> strength(grid.size, 0.0f);
  for (int64_t y = 0; y < grid.height; ++y) {
    for (int64_t x = 0; x < grid.width; ++x) {
      strength[grid.index(y, x)] =
          std::pow(1.0f - edge[y * grid.width + x], static_cast<float>(beta));
    }
  }
  return strength;
}

void fill_affinities(Transition& t, const std::vector<float>& strength, int threads) {
  std::vector<std::vector<int64_t>> offsets;
  for (const Path& path : t.paths) {
    t.steps.push_back(path.end.dy * t.grid.stride + path.end.dx);
    offsets.emplace_back();
    for (const Offset& o : path.pixels) offsets.back().push_back(o.dy * t.grid.stride + o.dx);
  }
  t.planes.assign(t.paths.size() * t.grid.size, 0.0f);
  for_tiles(t.grid, threads, [&](int64_t first, int64_t last) {
    for (size_t p = 0; p < t.paths.size(); ++p) {
      weakest_link(strength.data() + first, offsets[p].data(), static_cast<int>(offsets[p].size()),
                   t.planes.data() + p * t.grid.size + first, last - first);
    }
  });
}

// D_i = 1 + sum_j A_ij.
void fill_degrees(Transition& t, int threads) {
  t.inverse_degree.assign(t.grid.size, 0.0f);
  for_tiles(t.grid, threads, [&](int64_t first, int64_t last) {
    float degree[kTile];
    std::fill_n(degree, last - first, 1.0f);
    for (size_t p = 0; p < t.steps.size(); ++p) {
      const float* plane = t.planes.data() + p * t.grid.size;
      for (int64_t i = first; i < last; ++i) degree[i - first] += plane[i] + plane[i - t.steps[p]];
    }
    for (int64_t i = first; i < last; ++i) t.inverse_degree[i] = 1.0f / degree[i - first];
  });
}

Transition make_transition(const float* edge, const PaddedGrid& grid, const RandomWalk& walk,
                           int threads) {
  Transition t{grid, path_table(walk.radius), {}, {}, {}};
  fill_affinities(t, link_strength(grid, edge, walk.beta), threads);
  fill_degrees(t, threads);
  return t;
}

// The vectors of the walk, each (K, size) in the padded grid.
struct Iterates {
  Iterates(int64_t maps, int64_t size)
      : size(size), current(maps * size), previous(maps * size), sum(maps * size) {}
  int64_t size;
  std::vector<float> current, previous, sum;
};

// A term of the recurrence: next = scale * current T - keep * previous, sum += coefficient * next.
struct Term {
  float scale, keep, coefficient;
};

void advance(const Transition& t, Iterates& v, int64_t maps, Term term, int threads) {
  for_tiles(t.grid, threads, [&](int64_t first, int64_t last) {
    float product[kTile];
    for (int64_t k = 0; k < maps; ++k) {
      float* older = v.previous.data() + k * v.size;
      float* sum = v.sum.data() + k * v.size;
      step(t.planes.data(), t.grid.size, t.steps.data(), static_cast<int>(t.steps.size()),
           t.inverse_degree.data(), v.current.data() + k * v.size, product, first, last);
      for (int64_t i = first; i < last; ++i) {
        older[i] = term.scale * product[i - first] - term.keep * older[i];
        sum[i] += term.coefficient * older[i];
      }
    }
  });
  std::swap(v.current, v.previous);
}

// sum = current T^steps = sum of c_k y_k, where y_0 = current, y_1 = y_0 T and
// y_{k+1} = 2 y_k T - y_{k-1}.
void chebyshev_power(const Transition& t, Iterates& v, int64_t maps, const RandomWalk& walk,
                     int threads) {
  const std::vector<double> c = chebyshev_coefficients(walk.steps, walk.tolerance);
  for (size_t i = 0; i < v.sum.size(); ++i) v.sum[i] = static_cast<float>(c[0]) * v.current[i];
  for (size_t k = 1; k < c.size(); ++k) {
    const float coefficient = static_cast<float>(c[k]);
    const Term term = k == 1 ? Term{1, 0, coefficient} : Term{2, 1, coefficient};
    advance(t, v, maps, term, threads);
  }
}

void plain_power(const Transition& t, Iterates& v, int64_t maps, const RandomWalk& walk,
                 int threads) {
  for (int64_t step = 0; step < walk.steps; ++step) advance(t, v, maps, {1, 0, 0}, threads);
  v.sum = v.current;
}

}  // namespace

void random_walk_cpu(const float* cam, const float* edge, float* out, int64_t maps, int64_t height,
                     int64_t width, const RandomWalk& walk, int threads) {
  const PaddedGrid grid(height, width, walk.radius);
  const Transition t = make_transition(edge, grid, walk, threads);
  Iterates v(maps, grid.size);
  const int64_t pixels = height * width;
  for (int64_t k = 0; k < maps; ++k) {
    for (int64_t i = 0; i < pixels; ++i) {
      const int64_t at = k * grid.size + grid.index(i / width, i % width);
      v.current[at] = cam[k * pixels + i] * (1.0f - edge[i]);
    }
  }
  (walk.chebyshev ? chebyshev_power : plain_power)(t, v, maps, walk, threads);
  for (int64_t k = 0; k < maps; ++k) {
    for (int64_t i = 0; i < pixels; ++i) {
      out[k * pixels + i] = v.sum[k * grid.size + grid.index(i / width, i % width)];
    }
  }
}

}  // namespace c2am
