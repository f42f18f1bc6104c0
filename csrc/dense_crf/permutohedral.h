// The permutohedral lattice (Adams et al. 2010): high-dimensional Gaussian filtering by splatting
// points onto a sparse lattice, blurring along its axes and slicing the points out again.
//
// The lattice A*_d is Z^d under a linear map, and its simplices are those of the Kuhn triangulation
// of Z^d: a point's simplex begins at the floor of its position, and goes on by raising one
// coordinate after the other by 1, that with the largest fraction first. The d + 1 axes of the blur
// are then the unit vectors and (1, ..., 1).
#pragma once

#include <cstdint>
#include <vector>

#include "buffer.h"
#include "dense_crf/features.h"

namespace c2am {

struct Grid;

class PermutohedralLattice {
 public:
  static constexpr int kPadding = 48;  // valid elements after the ends of arrays, to prefetch

  struct Span {
    int32_t first, last;  // points first .. last - 1
  };

  // Throws std::invalid_argument if the features are so many standard deviations wide that keys do
  // not fit. The lattice does not depend on `threads`.
  PermutohedralLattice(const Features& features, int threads);

  int axes;          // d + 1: of the blur; as many vertices has a simplex
  int64_t points;    // N
  int64_t vertices;  // M; they count from 1 in lexicographic order, and 0 stands for a missing one
  Buffer<int32_t> corner;  // (N, d + 1) vertices of the simplex around a point
  Buffer<float> weight;    // (N, d + 1) its barycentric coordinates
  // The vertices that follow each other along an axis are a chain; a vertex without neighbours is
  // in none. Entries are 2 v, or 2 v + 1 for the first vertex of a chain. Those of axis a that
  // begin in block b lie from chain_starts[a (B + 1) + b] on, in order, and end with the first of a
  // chain of the missing vertex.
  Buffer<uint32_t> chains;
  std::vector<int64_t> chain_starts;
  // From vertex slabs[s] to slabs[s + 1] - 1 are all vertices with some first coordinates. A
  // simplex that begins in a slab ends there or in the next one.
  std::vector<int32_t> slabs;
  // The same with some first two coordinates, within slabs: only the axes 0, 1 and 2 lead out of a
  // block, and only 0 and 1 out of a slab, to the next ones.
  std::vector<int32_t> blocks;
  std::vector<std::vector<Span>> spans;  // the points whose simplices begin in each slab

 private:
  template <typename Key>
  void build(const Features& features, const Grid& grid, int threads);
  template <typename Tables, typename Key>
  void embed(Tables tables, const Features& features, const Grid& grid, const Key* places,
             int threads, std::vector<Key>& keys);
  template <typename Key>
  void connect(const std::vector<Key>& keys, Key step, int axis, int64_t at);
  void assign_points();
};

}  // namespace c2am
