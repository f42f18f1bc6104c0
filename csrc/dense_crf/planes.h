// From planes of channels, (channels, N), to rows of them, (groups, N, width), and back.
#pragma once

#include <cstdint>

namespace c2am {

// Channels in as few groups as there are widths for (see row.h); the last ones are padding.
struct Grouping {
  explicit Grouping(int64_t channels);

  int64_t channels, groups;
  int width;
};

// Padding is 0.
void rows_of_planes(const Grouping& grouping, int64_t points, const float* planes, float* rows,
                    int threads);
// Q - Q_last, of marginals: (channels + 1, N).
void difference_rows(const Grouping& grouping, int64_t points, const float* marginals, float* rows,
                     int threads);
// U_last - U, of energies: (channels + 1, N); in padding such that its Q is 0.
void relative_rows(const Grouping& grouping, int64_t points, const float* unary, float* rows,
                   int threads);

// rows: (groups, count, width), of `count` points of planes that begin there.
void planes_of_rows(const Grouping& grouping, int64_t points, int64_t count, const float* rows,
                    float* planes);

}  // namespace c2am
