// Random walk on a pixel grid up to class boundaries (Ahn et al. 2019, Eq. 8-10).
//
//   A[i,j] = (1 - max edge on the path from i to j)^beta   for |i - j| < radius, A[i,i] = 1
//   T = A D^-1, D = diag(column sums of A)
//   out = (cam * (1 - edge)) T^steps
//
// T is similar to the symmetric D^-1/2 A D^-1/2, so its spectrum lies in [-1, 1] and T^n can be a
// Chebyshev sum. A is stored as one plane per displacement, half of them by symmetry, so that
// memory is O(34 N) for radius 5.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "paths.h"

namespace c2am {

// Coefficients c of x^steps = sum_k c_k T_k(x) on [-1, 1], up to the least degree for which the
// coefficients left out, all positive, sum to at most `tolerance`.
std::vector<double> chebyshev_coefficients(int64_t steps, double tolerance);

struct RandomWalk {
  double radius;
  double beta;
  int64_t steps;
  bool chebyshev;    // else take every step
  double tolerance;  // of the Chebyshev sum: bound of the error in the norm sum_i D_i x_i^2
};

// The grid with a margin of zeros wide enough for every displacement, flattened: neighbours are at
// one fixed distance, walls need no tests. Rows share the margin between them. Rows and columns
// are filled up to whole blocks, which begin at multiples of `block_columns`.
struct PaddedGrid {
  PaddedGrid(int64_t height, int64_t width, double radius, int block_rows = 1,
             int block_columns = 1);
  int64_t index(int64_t y, int64_t x) const { return begin + y * stride + x; }
  int64_t step(Offset o) const { return o.dy * stride + o.dx; }

  int64_t height, width;
  int64_t stride;      // from row to row
  int64_t begin, end;  // of the rows of the grid
  int64_t size;        // with the margins before and after
};

// cam: (K, H, W), edge: (H, W) in [0, 1], out: (K, H, W); all contiguous.
void random_walk_cpu(const float* cam, const float* edge, float* out, int64_t maps, int64_t height,
                     int64_t width, const RandomWalk& walk, int threads);

struct WalkImage {
  const float *cam, *edge;
  float* out;
  int64_t maps, height, width;
};

// random_walk_cpu of several images, each by one thread, or by all if they are fewer than these.
void random_walk_batch_cpu(const std::vector<WalkImage>& images, const RandomWalk& walk,
                           int threads);

#ifdef C2AM_WITH_CUDA
// The same on a GPU, some images at a time. Errors of CUDA are std::runtime_error.
class RandomWalkCuda {
 public:
  // device: its index. It becomes the current one, also of `run`.
  RandomWalkCuda(const std::vector<WalkImage>& images, const RandomWalk& walk, int device);
  ~RandomWalkCuda();

  // Bytes of the block of device memory that `run` gets.
  int64_t bytes() const;
  // Returns once the work is queued on `stream`.
  void run(void* block, void* stream) const;

 private:
  struct Parts;
  int device_;
  std::unique_ptr<const Parts> parts_;
};
#endif

}  // namespace c2am
