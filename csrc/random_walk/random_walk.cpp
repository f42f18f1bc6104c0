#include "random_walk/random_walk.h"

#include <algorithm>
#include <cmath>

namespace c2am {
PaddedGrid::PaddedGrid(int64_t height, int64_t width, double radius, int block_rows,
                       int block_columns)
    : height(height), width(width) {
  const auto fill_up = [](int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; };
  const int64_t r = reach(radius);
  stride = fill_up(fill_up(width, block_columns) + r, block_columns);
  begin = fill_up(r * stride + r, block_columns);
  end = begin + fill_up(height, block_rows) * stride;
  size = end + begin;
}

// x^n = 2^(1-n) sum over k = n, n-2, ... of binomial(n, (n-k)/2) T_k(x), half of it for k = 0.
std::vector<double> chebyshev_coefficients(int64_t steps, double tolerance) {
  const double n = static_cast<double>(steps);
  std::vector<double> coefficients(steps + 1, 0.0);
  double log_binomial = 0;  // not by lgamma, which threads must not call at once
  for (int64_t k = steps, j = 0; k >= 0; k -= 2, ++j) {
    const double value = std::exp(log_binomial + (1 - n) * std::log(2.0));
    coefficients[k] = k == 0 ? value / 2 : value;
    log_binomial += std::log(n - static_cast<double>(j)) - std::log(static_cast<double>(j + 1));
  }
  double dropped = 0;
  while (coefficients.size() > 1 && dropped + coefficients.back() <= tolerance) {
    dropped += coefficients.back();
    coefficients.pop_back();
  }
  return coefficients;
}

}  // namespace c2am
