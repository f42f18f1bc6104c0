#include "paths.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <tuple>

namespace c2am {
namespace {

Path straight_path(Offset end) {
  Path path{end, {}};
  const int length_squared = end.dy * end.dy + end.dx * end.dx;
  for (int y = 0; y <= end.dy; ++y) {
    for (int x = std::min(0, end.dx); x <= std::max(0, end.dx); ++x) {
      // Within the bounding box the distance to the segment is the distance to its line.
      const int cross = end.dy * x - end.dx * y;
      if (cross * cross < length_squared) path.pixels.push_back({y, x});
    }
  }
  const auto place = [](Offset o) { return std::make_tuple(o.dy + std::abs(o.dx), o.dy, o.dx); };
  std::sort(path.pixels.begin(), path.pixels.end(),
            [&](Offset a, Offset b) { return place(a) < place(b); });
  return path;
}

}  // namespace

int reach(double radius) { return static_cast<int>(std::ceil(radius)) - 1; }

std::vector<Path> path_table(double radius) {
  std::vector<Path> table;
  const int r = reach(radius);
  for (int dy = 0; dy <= r; ++dy) {
    for (int dx = -r; dx <= r; ++dx) {
      const bool first_of_pair = dy > 0 || dx > 0;
      if (first_of_pair && dy * dy + dx * dx < radius * radius) {
        table.push_back(straight_path({dy, dx}));
      }
    }
  }
  return table;
}

}  // namespace c2am
