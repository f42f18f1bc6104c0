// Pairs of pixels and the paths between them (Ahn et al. 2019); as c2am/ops/paths.py.
#pragma once

#include <cstdint>
#include <vector>

namespace c2am {

struct Offset {
  int dy, dx;
};

// A displacement from a pixel, and the pixels on the way, both ends included: by |y| + |x| from
// that pixel on, then y, then x.
struct Path {
  Offset end;
  std::vector<Offset> pixels;
};

// ceil(radius) - 1: the longest displacement along an axis.
int reach(double radius);

// The displacements shorter than `radius`, one of each pair +d, -d, by dy, then dx (34 for radius
// 5). On the path are the pixels whose distance to the segment is below 1.
std::vector<Path> path_table(double radius);

}  // namespace c2am
