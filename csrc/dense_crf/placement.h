// Where points lie in the permutohedral lattice.
#pragma once

#include <cstdint>

#include "dense_crf/features.h"

namespace c2am {

constexpr int kMaxDimension = 16;
constexpr int kBatch = 32;  // points that are placed together

// Position j = sqrt(2/3) (sum of f_i / sqrt(i (i + 1)) over i < j, + f_j sqrt((j + 1) / j)), j from
// 1: the elevated coordinates of Adams et al. 2010 (Sec. 3.1), (e_0 - e_j) / (d + 1), scaled so
// that the blur's standard deviation is one unit of every feature. Increasing in every feature.
struct Slope {
  double own, later;
};

// The bounds of all coordinates of vertices and their neighbours.
struct Grid {
  explicit Grid(const Features& features);
  // Infinite where a coordinate is too large for float64 to tell it from the next one.
  double key_bits() const;

  int dimension;
  Slope slope[kMaxDimension];
  double lowest[kMaxDimension], extent[kMaxDimension];
};

// The Kuhn simplex around each point of a batch.
struct Placement {
  double features[kMaxDimension * kBatch];
  double base[kMaxDimension * kBatch];  // its first vertex's coordinates, from the lowest ones on
  // The fractions of the coordinates, in descending order: the bits of a float64, which as integers
  // are in the same order. The lowest bits say which coordinate it is of; so of equal fractions
  // that of the last coordinate comes first.
  int64_t fraction[kMaxDimension * kBatch];
  float weight[(kMaxDimension + 1) * kBatch];  // barycentric coordinates
  uint64_t key[(kMaxDimension + 1) * kBatch];  // of the vertices, where 64 bits hold them
};
constexpr int64_t kCoordinate = kMaxDimension - 1;  // those lowest bits

// Sets all but the features. A key is the sum of coordinate j times places[j], modulo 2^64.
void place(const Grid& grid, const uint64_t* places, Placement* at);

}  // namespace c2am
