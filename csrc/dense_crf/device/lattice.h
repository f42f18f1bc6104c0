// The permutohedral lattice of the pixels of several images, and the steps that build it: each
// struct is one step, called for the threads 0 .. n - 1.
//
// The corners of all simplices are sorted by key, stably, so that those of a vertex lie together in
// the order of the points: sums over them need no atomic operations, and have the same bits in
// every run. Vertices are numbered in the order of their keys, from 1; 0 stands for a missing one.
//
// A hash table of vertices would not replace the sort: whoever sums by vertex has to have the
// corners grouped by vertex, in an order that does not hang on the threads. It would shorten the
// keys that are sorted, at the price of insertions that wait for each other and of a capacity to be
// guessed; here the vertices are counted before their memory is taken.
#pragma once

#include "dense_crf/device/placement.h"

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
  Neighbours* neighbours;    // (6, M + 1)

  C2AM_HD int64_t count() const { return points * kAxes; }
  C2AM_HD int64_t tiles() const { return (count() + kTile - 1) / kTile; }
};

// What lives until the lattice is built, all (6 N,).
struct Sorting {
  uint64_t *keys, *other_keys;
  int32_t *corners, *other_corners;  // 6 * point + corner
  int32_t* number;                   // 1 for the first corner of a vertex, else 0; then its sum
};

// For each point: the keys of its corners.
struct Place {
  const uint8_t* image;  // (N, 3)
  int32_t height, width;
  double sxy, srgb;
  Keys keys;
  Lattice lattice;
  Sorting to;

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
      to.keys[n * kAxes + k] = key[k];
      to.corners[n * kAxes + k] = static_cast<int32_t>(n * kAxes + k);
      lattice.weight[k * lattice.points + n] = weight[k];
    }
  }
};

// For each sorted corner: whether a vertex begins.
struct Begin {
  const uint64_t* keys;
  int32_t* number;

  C2AM_HD void operator()(int64_t i, int) const {
    number[i] = i == 0 || keys[i] != keys[i - 1] ? 1 : 0;
  }
};

// For each sorted corner: its entry, and the vertices that begin there.
struct Number {
  Sorting from;
  Lattice to;
  uint64_t* vertex_keys;  // (M + 1,)

  C2AM_HD void operator()(int64_t i, int) const {
    const int32_t vertex = from.number[i], corner = from.corners[i];
    const int32_t point = corner / kAxes, k = corner % kAxes;
    const int64_t place = k * to.points + point;
    const bool first = i == 0 || from.number[i - 1] != vertex;
    to.corner[place] = vertex;
    to.entries[i] = {static_cast<uint32_t>(point) | (first ? Entry::kFirst : 0u), to.weight[place]};
    if (first) {
      to.start[vertex] = static_cast<int32_t>(i);
      vertex_keys[vertex] = from.keys[i];
    }
    if (i % kTile == 0) to.tile_vertex[i / kTile] = vertex;
    if (i == 0) to.start[0] = 0;
    if (i == to.count() - 1) to.start[vertex + 1] = static_cast<int32_t>(i + 1);
  }
};

// For each vertex (from 0) and axis: the neighbours, all of which are missing at first.
struct Connect {
  const uint64_t* vertex_keys;  // (M + 1,)
  Keys keys;
  Lattice lattice;

  C2AM_HD void operator()(int64_t i, int axis) const {
    const auto vertex = static_cast<int32_t>(i + 1);
    const uint64_t wanted = vertex_keys[vertex] + keys.step[axis];
    // Binary search between the vertex itself, whose key is smaller, and the end.
    auto low = vertex, high = static_cast<int32_t>(lattice.vertices);
    while (low < high) {
      const int32_t middle = low + (high - low + 1) / 2;
      const bool beyond = vertex_keys[middle] > wanted;
      low = beyond ? low : middle;
      high = beyond ? middle - 1 : high;
    }
    if (vertex_keys[low] != wanted) return;
    Neighbours* along = lattice.neighbours + axis * (lattice.vertices + 1);
    along[vertex].after = low;
    along[low].before = vertex;
  }
};

}  // namespace c2am::device
