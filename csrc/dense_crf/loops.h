// The inner loops of the dense CRF, on channels in groups of `width` (4 or 8): a pixel's or a
// vertex's values of one group are adjacent, so that every loop is a loop over vectors.
#pragma once

#include <cstdint>

namespace c2am::loops {

// values[v] = sum of weight * from[pixel] over the entries of the vertices first .. last - 1.
void splat(int width, const int32_t* start, const int32_t* entry_pixel, const float* entry_weight,
           const float* from, float* values, int64_t first, int64_t last);

// to[v] = from[v] + (from[neighbour] + from[other neighbour]) / 2 along one axis.
void blur(int width, const int32_t* neighbours, const float* from, float* to, int64_t first,
          int64_t last);

// to[n] += sum of weight * values[corner] over the 6 corners around the pixels first .. last - 1;
// `to` begins at the first.
void slice(int width, const int32_t* corner, const float* weight, const float* values, float* to,
           int64_t first, int64_t last);

// to[i] = sum over t of taps[t] * from[i + t * stride], for i from 0 to n - 1.
void correlate(const float* from, int64_t stride, const float* taps, int64_t count, float* to,
               int64_t n);

// In place: softmax over the channels, which are `groups` groups, `group_stride` floats apart.
// Channels that pad the last group hold kPadding, and get 0.
constexpr float kPadding = -1e30f;
void softmax(int width, float* values, int64_t groups, int64_t group_stride, int64_t pixels);

}  // namespace c2am::loops
