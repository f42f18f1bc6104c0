#include "random_walk/random_walk.h"

#include <algorithm>
#include <cmath>

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
  return path;
}

int reach(double radius) { return static_cast<int>(std::ceil(radius)) - 1; }

}  // namespace

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

PaddedGrid::PaddedGrid(int64_t height, int64_t width, double radius)
    : height(height), width(width) {
  const int64_t r = reach(radius);
  stride = width + r;
  begin = r * stride + r;
  end = begin + height * stride;
  size = end + begin;
}

// x^n = 2^(1-n) sum over k = n, n-2, ... of binomial(n, (n-k)/2) T_k(x), half of it for k = 0.
std::vector<double> chebyshev_coefficients(int64_t steps, double tolerance) {
  const double n = static_cast<double>(steps);
  std::vector<double> coefficients(steps + 1, 0.0);
  for (int64_t k = steps; k >= 0; k -= 2) {
    const double j = static_cast<double>((steps - k) / 2);
    const double log_binomial = std::lgamma(n + 1) - std::lgamma(j + 1) - std::lgamma(n - j + 1);
    const double value = std::exp(log_binomial + (1 - n) * std::log(2.0));
    coefficients[k] = k == 0 ? value / 2 : value;
  }
  double dropped = 0;
  while (coefficients.size() > 1 && dropped + coefficients.back() <= tolerance) {
    dropped += coefficients.back();
    coefficients.pop_back();
  }
  return coefficients;
}

}  // namespace c2am
