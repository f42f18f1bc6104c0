// The random walk of random_walk.h as what a GPU's threads do: each struct is one step, called for
// the threads 0 .. n - 1. All images lie in one grid, one below the other with zeros between, so
// that a step of all walks is one launch. Maps lie side by side in fours. Many steps in one launch
// are in tiles.h, the order of all in walk.h.
#pragma once

#include <cstdint>

#include "vec.h"

namespace c2am::device {

constexpr int kFour = 4;

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

C2AM_HD void add_flow(float weight, const Vec<kFour>& other, const Vec<kFour>& own,
                      Vec<kFour>& flow) {
  for (int j = 0; j < kFour; ++j) flow.at[j] += weight * (other.at[j] - own.at[j]);
}

// sum_j A_ij (x_j - x_i) over every `lanes`-th displacement from the `lane`-th on, for four maps.
// x and plane, the first of the planes, each `size` apart, point to pixel i.
template <typename Index>
C2AM_HD Vec<kFour> flow_into(const float* x, const float* plane, Index size, const Index* ends,
                             int32_t count, int lane = 0, int lanes = 1) {
  const Vec<kFour> own = load<kFour>(x);
  Vec<kFour> flow = Vec<kFour>::of(0);
  for (int32_t p = lane; p < count; p += lanes) {
    const Index step = ends[p];
    const float* weight = plane + p * size;
    add_flow(weight[0], load<kFour>(x + kFour * step), own, flow);
    add_flow(weight[-step], load<kFour>(x - kFour * step), own, flow);
  }
  return flow;
}

// Eq. 10, one step of four maps: (x T)_i = x_i + sum_j A_ij (x_j - x_i) / D_i, then the term of the
// recurrence; `previous` becomes the next vector. In this form rounding does not pile up over the
// steps where links are weak and x_i should stay as it is.
C2AM_HD void advance(const WalkTerm& term, const Vec<kFour>& own, float inverse_degree,
                     const Vec<kFour>& flow, Vec<kFour>& previous) {
  for (int j = 0; j < kFour; ++j) {
    previous.at[j] =
        term.scale * (own.at[j] + inverse_degree * flow.at[j]) - term.keep * previous.at[j];
  }
}

// One step of four maps, by a team that shares the displacements.
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
    Vec<kFour> flow = flow_into(v.current + at, planes + here.at, grid.size, paths.ends,
                                paths.count, lane, Lanes);
    for (int j = 0; j < kFour; ++j) flow.at[j] = team_sum<Lanes>(flow.at[j]);
    if (lane != 0) return;
    Vec<kFour> next = load<kFour>(v.previous + at), sum = load<kFour>(v.sum + at);
    advance(term, load<kFour>(v.current + at), inverse_degree[here.at], flow, next);
    sum.add(term.coefficient, next);
    store(v.previous + at, next);
    store(v.sum + at, sum);
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

}  // namespace c2am::device
