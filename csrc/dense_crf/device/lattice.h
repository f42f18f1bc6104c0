// The permutohedral lattice of the pixels of several images, and the steps that build it, however
// its vertices are found: by sorting (sorting.h) or with a hash table (hashing.h). Each struct is
// one step, called for the threads 0 .. n - 1.
//
// The corners of all simplices end up by vertex, those of a vertex in the order of the points: sums
// over them need no atomic operations, and have the same bits in every run. Vertices are counted
// before their memory is taken, and numbered in the order of their keys, from 1: neighbours are
// often near. 0 stands for a missing one.
#pragma once

#include "dense_crf/device/placement.h"
#include "parts.h"

namespace c2am::device {

constexpr int kTile = 16;  // entries that one thread sums

// A corner, seen from its vertex.
struct alignas(8) Entry {
  static constexpr uint32_t kFirst = 1u << 31;  // added to the point in a vertex's first entry
  uint32_t marked_point;
  float weight;

  C2AM_HD bool first() const { return (marked_point & kFirst) != 0; }
  C2AM_HD int64_t point() const { return marked_point & ~kFirst; }
};
struct alignas(8) Neighbours {
  int32_t after, before;  // one step along an axis, and one step back
};

struct Lattice {
  int64_t points, vertices;  // N, M
  int32_t* corner;           // (6, N) vertices of the simplex around a point
  float* weight;             // (6, N) its barycentric coordinates
  Entry* entries;            // (6 N,) by vertex, then by point
  int32_t* tile_vertex;      // (tiles,) the vertex of the first entry of each tile
  float* scale;              // (N,) compat * gain * n_i
  int32_t* start;            // (M + 2,) entries start[v] .. start[v + 1] - 1 belong to vertex v
  Neighbours* neighbours;    // (6, M + 1) all missing at first

  C2AM_HD int64_t count() const { return points * kAxes; }
  C2AM_HD int64_t tiles() const { return (count() + kTile - 1) / kTile; }
  // Notes that `after` is one step from `before` along an axis.
  C2AM_HD void connect(int axis, int32_t before, int32_t after) const {
    Neighbours* along = neighbours + axis * (vertices + 1);
    along[before].after = after;
    along[after].before = before;
  }
};

template <typename T>
struct Fill {
  T value;
  T* to;

  C2AM_HD void operator()(int64_t i, int) const { to[i] = value; }
};

// Corners, and what they are to be sorted by.
template <typename Key>
struct CornersBy {
  Key *keys, *other_keys;
  int32_t *corners, *other_corners;  // 6 * point + corner

  void take(Parts& parts, int64_t count) {
    for (Key** part : {&keys, &other_keys}) parts.take(*part, count);
    for (int32_t** part : {&corners, &other_corners}) parts.take(*part, count);
  }
};

// For each point: the keys of its corners.
struct Place {
  const uint8_t* image;  // (N, 3)
  int32_t height, width;
  double sxy, srgb;
  Keys keys;
  Lattice lattice;
  uint64_t* to;      // (6 N,)
  int32_t* corners;  // (6 N,) their numbers

  C2AM_HD void operator()(int64_t n, int) const {
    double features[kDimension];
    const auto row = static_cast<int32_t>(n) / width;
    features[0] = (static_cast<int32_t>(n) - row * width) / sxy;
    features[1] = row % height / sxy;
    for (int c = 0; c < 3; ++c) features[2 + c] = image[3 * n + c] / srgb;
    uint64_t key[kAxes];
    float weight[kAxes];
    place(keys, row / height, features, key, weight);
    for (int k = 0; k < kAxes; ++k) {
      to[n * kAxes + k] = key[k];
      corners[n * kAxes + k] = static_cast<int32_t>(n * kAxes + k);
      lattice.weight[k * lattice.points + n] = weight[k];
    }
  }
};

// For each corner, in the order of the vertices: its entry, and the vertex that begins there.
struct Enter {
  const uint32_t* vertices;
  const int32_t* corners;
  Lattice to;

  C2AM_HD bool begins(int64_t i) const { return i == 0 || vertices[i - 1] != vertices[i]; }
  C2AM_HD void operator()(int64_t i, int) const {
    const auto vertex = static_cast<int32_t>(vertices[i]);
    const int32_t point = corners[i] / kAxes, k = corners[i] % kAxes;
    const int64_t place = k * to.points + point;
    to.corner[place] = vertex;
    to.entries[i] = {static_cast<uint32_t>(point) | (begins(i) ? Entry::kFirst : 0u),
                     to.weight[place]};
    if (begins(i)) to.start[vertex] = static_cast<int32_t>(i);
    if (i % kTile == 0) to.tile_vertex[i / kTile] = vertex;
    if (i == 0) to.start[0] = 0;
    if (i == to.count() - 1) to.start[vertex + 1] = static_cast<int32_t>(i + 1);
  }
};

}  // namespace c2am::device
