// The inner loops of lattice filtering. Channels lie in rows: the `width` values of a point or of a
// vertex are adjacent, so that every loop is one over vectors. See row.h for the widths, and for
// Float16, which the values of vertices may be stored as.
#pragma once

#include <cstdint>

#include "dense_crf/permutohedral.h"
#include "dense_crf/row.h"

namespace c2am::loops {

// values[corner] += weight * scale[n] * from[n] over the corners of the points n of `count` spans.
// Null is a `scale` of ones, and for a width of 1 a `from` of ones.
void splat(int width, int corners, const int32_t* corner, const float* weight,
           const PermutohedralLattice::Span* spans, int64_t count, const float* from,
           const float* scale, float* values);

// Adds to the vertices of the chains of a block, which end with that of the missing vertex, half of
// what their neighbours in them were.
void blur(int width, const uint32_t* chains, float* values);

// to = from, n values.
void round_values(const float* from, Float16* to, int64_t n);

// to[n] += scale[n] * sum of weight * values[corner] over the corners of the points first ..
// last - 1; `scale` and `to` begin at the first.
void slice(int width, int corners, const int32_t* corner, const float* weight, const float* scale,
           const float* values, float* to, int64_t first, int64_t last);
void slice(int width, int corners, const int32_t* corner, const float* weight, const float* scale,
           const Float16* values, float* to, int64_t first, int64_t last);

}  // namespace c2am::loops
