// The permutohedral lattice (Adams et al. 2010), as the dense CRF of Krahenbuhl & Koltun uses it:
// high-dimensional Gaussian filtering by splatting pixels onto a sparse lattice, blurring along its
// axes and slicing the pixels out again.
#pragma once

#include <cstdint>
#include <vector>

namespace c2am {

class PermutohedralLattice {
 public:
  static constexpr int kDim = 5;             // features: x, y, red, green, blue
  static constexpr int kCorners = kDim + 1;  // vertices of a simplex, and axes of the blur

  // image: (H, W, 3) uint8. A pixel has the features (x / sxy, y / sxy, rgb / srgb). Throws
  // std::invalid_argument if these are so many standard deviations wide that keys do not fit.
  PermutohedralLattice(const uint8_t* image, int64_t height, int64_t width, double sxy, double srgb,
                       int threads);

  int64_t pixels;                   // N = H * W
  int64_t vertices;                 // M; they count from 1, and 0 stands for a missing vertex
  std::vector<int32_t> corner;      // (N, 6) vertices of the simplex around a pixel
  std::vector<float> weight;        // (N, 6) its barycentric coordinates
  std::vector<int32_t> neighbours;  // (6, M + 1, 2) of each vertex along each axis
  // The transpose of `corner`: entries start[v] .. start[v + 1] - 1 belong to vertex v.
  std::vector<int32_t> start;        // (M + 2,)
  std::vector<int32_t> entry_pixel;  // (6 N,) in ascending order for each vertex
  std::vector<float> entry_weight;   // (6 N,)

 private:
  struct Embedding;
  template <typename Key>
  void build(const Embedding& embedding);
  void transpose();
};

}  // namespace c2am
