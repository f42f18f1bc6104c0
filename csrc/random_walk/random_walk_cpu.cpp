#include <algorithm>
#include <cmath>

#include "random_walk/random_walk.h"
#include "simd.h"

namespace c2am {
namespace {

constexpr int64_t kTile = 2048;  // pixels of one task; its rows of S stay in the L2 cache

struct Transition {
  PaddedGrid grid;
  std::vector<Path> paths;
  std::vector<int64_t> steps;  // (P,) distance of a neighbour in the padded grid
  std::vector<float> planes;   // (P, size): S[i, i + steps[p]], zero where either is a wall
  std::vector<float> self;     // (size,): S[i, i]
  std::vector<float> root;     // (size,): D^1/2, zero in the margin
};

// values[i] = min over the path of strength[i + offset]; i from 0 to n - 1.
C2AM_CLONES void weakest_link(const float* strength, const int64_t* offsets, int count,
                              float* values, int64_t n) {
  std::copy(strength + offsets[0], strength + offsets[0] + n, values);
  for (int k = 1; k < count; ++k) {
    const float* other = strength + offsets[k];
    for (int64_t i = 0; i < n; ++i) values[i] = other[i] < values[i] ? other[i] : values[i];
  }
}

// Eq. 10, one step: out[i - first] = (S x)[i] for the pixels first .. last - 1 of the padded grid.
C2AM_CLONES void multiply(const float* planes, int64_t size, const int64_t* steps, int count,
                          const float* self, const float* x, float* out, int64_t first,
                          int64_t last) {
  using V = Vector<16>;
  int64_t i = first;
  for (; i + 16 <= last; i += 16) {
    V sum, weight, value;
    load(weight, self + i);
    load(value, x + i);
    sum = weight * value;
    for (int p = 0; p < count; ++p) {
      const float* plane = planes + p * size + i;
      load(weight, plane);
      load(value, x + i + steps[p]);
      sum += weight * value;
      load(weight, plane - steps[p]);
      load(value, x + i - steps[p]);
      sum += weight * value;
    }
    store(out + (i - first), sum);
  }
  for (; i < last; ++i) {
    float sum = self[i] * x[i];
    for (int p = 0; p < count; ++p) {
      const float* plane = planes + p * size + i;
      sum += plane[0] * x[i + steps[p]] + plane[-steps[p]] * x[i - steps[p]];
    }
    out[i - first] = sum;
  }
}

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

// S = D^-1/2 A D^-1/2 in place of A.
void normalise(Transition& t, int threads) {
  const int64_t size = t.grid.size;
  const int count = static_cast<int>(t.steps.size());
  std::vector<float> ones(size, 0.0f), inverse(size, 0.0f);
  for (int64_t y = 0; y < t.grid.height; ++y) {
    std::fill_n(ones.begin() + t.grid.index(y, 0), t.grid.width, 1.0f);
  }
  t.self = ones;
  t.root.assign(size, 0.0f);
  for_tiles(t.grid, threads, [&](int64_t first, int64_t last) {
    multiply(t.planes.data(), size, t.steps.data(), count, t.self.data(), ones.data(),
             t.root.data() + first, first, last);
    for (int64_t i = first; i < last; ++i) {
      t.root[i] = std::sqrt(t.root[i]) * ones[i];
      inverse[i] = ones[i] > 0 ? 1.0f / t.root[i] : 0.0f;
    }
  });
  for_tiles(t.grid, threads, [&](int64_t first, int64_t last) {
    for (int p = 0; p < count; ++p) {
      float* plane = t.planes.data() + p * size;
      for (int64_t i = first; i < last; ++i) plane[i] *= inverse[i] * inverse[i + t.steps[p]];
    }
    for (int64_t i = first; i < last; ++i) t.self[i] = inverse[i] * inverse[i];
  });
}

Transition make_transition(const float* edge, const PaddedGrid& grid, const RandomWalk& walk,
                           int threads) {
  Transition t{grid, path_table(walk.radius), {}, {}, {}, {}};
  fill_affinities(t, link_strength(grid, edge, walk.beta), threads);
  normalise(t, threads);
  return t;
}

// The vectors of the walk, each (K, size) in the padded grid.
struct Iterates {
  Iterates(int64_t maps, int64_t size)
      : size(size), current(maps * size), previous(maps * size), sum(maps * size) {}
  int64_t size;
  std::vector<float> current, previous, sum;
};

// A term of the recurrence: next = scale * S current - keep * previous, sum += coefficient * next.
struct Term {
  float scale, keep, coefficient;
};

void advance(const Transition& t, Iterates& v, int64_t maps, Term term, int threads) {
  for_tiles(t.grid, threads, [&](int64_t first, int64_t last) {
    float product[kTile];
    for (int64_t k = 0; k < maps; ++k) {
      float* older = v.previous.data() + k * v.size;
      float* sum = v.sum.data() + k * v.size;
      multiply(t.planes.data(), t.grid.size, t.steps.data(), static_cast<int>(t.steps.size()),
               t.self.data(), v.current.data() + k * v.size, product, first, last);
      for (int64_t i = first; i < last; ++i) {
        older[i] = term.scale * product[i - first] - term.keep * older[i];
        sum[i] += term.coefficient * older[i];
      }
    }
  });
  std::swap(v.current, v.previous);
}

// sum = S^steps current, by the three-term recurrence T_{k+1} = 2 S T_k - T_{k-1}.
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
      const int64_t at = grid.index(i / width, i % width);
      v.current[k * grid.size + at] = cam[k * pixels + i] * (1.0f - edge[i]) * t.root[at];
    }
  }
  (walk.chebyshev ? chebyshev_power : plain_power)(t, v, maps, walk, threads);
  for (int64_t k = 0; k < maps; ++k) {
    for (int64_t i = 0; i < pixels; ++i) {
      const int64_t at = grid.index(i / width, i % width);
      out[k * pixels + i] = v.sum[k * grid.size + at] / t.root[at];
    }
  }
}

}  // namespace c2am
