#include "dense_crf/placement.h"

#include <cmath>
#include <limits>

#include "simd.h"

namespace c2am {
namespace {

constexpr int kLanes = 8;  // points whose coordinates are sorted in registers

using Numbers = Vector<kLanes, double>;
using Bits = Vector<kLanes, int64_t>;
using Keys = Vector<kLanes, uint64_t>;

// Keys and weights of the vertices, from that of the first one on.
C2AM_INLINE void place_vertices(int dimension, const uint64_t* places, const Bits* order,
                                const Keys& first, int p, Placement* at) {
  Numbers before = Numbers{} + 1, fraction;
  Keys key = first;
  for (int k = 0; k < dimension; ++k) {
    store(at->key + k * kBatch + p, key);
    std::memcpy(&fraction, &order[k], sizeof(fraction));
    store(at->weight + k * kBatch + p, __builtin_convertvector(before - fraction, Vector<kLanes>));
    before = fraction;
    const Bits coordinate = order[k] & kCoordinate;
    Keys step = Keys{} + places[0];
    for (int j = 1; j < dimension; ++j) step = coordinate == j ? Keys{} + places[j] : step;
    key += step;
  }
  store(at->key + dimension * kBatch + p, key);
  store(at->weight + dimension * kBatch + p, __builtin_convertvector(before, Vector<kLanes>));
}

C2AM_INLINE void place_points(int dimension, const Grid& grid, const uint64_t* places,
                              Placement* at) {
  for (int p = 0; p < kBatch; p += kLanes) {
    Numbers sum = {}, feature, base;
    Bits order[kMaxDimension];
    Keys key = {}, coordinate;
    for (int j = 0; j < dimension; ++j) {
      load(feature, at->features + j * kBatch + p);
      const Numbers position = sum + grid.slope[j].own * feature;
      sum += grid.slope[j].later * feature;
      for (int i = 0; i < kLanes; ++i) base[i] = std::floor(position[i]);
      const Numbers fraction = position - base;
      std::memcpy(&order[j], &fraction, sizeof(fraction));
      order[j] = (order[j] & ~kCoordinate) | j;
      base -= grid.lowest[j];
      store(at->base + j * kBatch + p, base);
      base += 0x1p52;  // whose lowest bits are then those of the integer
      std::memcpy(&coordinate, &base, sizeof(base));
      key += (coordinate & 0xfffffffffffff) * places[j];
    }
    for (int end = dimension - 1; end > 0; --end) {
      for (int k = 0; k < end; ++k) {
        const Bits a = order[k], b = order[k + 1];
        order[k] = a > b ? a : b;
        order[k + 1] = a > b ? b : a;
      }
    }
    for (int k = 0; k < dimension; ++k) store(at->fraction + k * kBatch + p, order[k]);
    place_vertices(dimension, places, order, key, p, at);
  }
}

C2AM_INLINE void place_body(const Grid& grid, const uint64_t* places, Placement* at) {
  if (grid.dimension == 5) {  // the bilateral kernel's, unrolled
    place_points(5, grid, places, at);
  } else {
    place_points(grid.dimension, grid, places, at);
  }
}

}  // namespace

C2AM_DISPATCH(place, (const Grid& grid, const uint64_t* places, Placement* at), (grid, places, at))

Grid::Grid(const Features& features) : dimension(features.dimension) {
  double low_sum = 0, high_sum = 0;
  for (int j = 0; j < dimension; ++j) {
    const double n = j + 1;
    const auto [own, later] =
        slope[j] = {std::sqrt(2.0 / 3.0 * (n + 1) / n), std::sqrt(2.0 / 3.0 / (n * (n + 1)))};
    // In the very steps of `place`, so that rounding keeps the order.
    const double low = std::floor(low_sum + own * features.low[j]);
    const double high = std::floor(high_sum + own * features.high[j]);
    low_sum += later * features.low[j];
    high_sum += later * features.high[j];
    lowest[j] = low - 1;
    extent[j] = high - low + 4;
  }
}

double Grid::key_bits() const {
  double bits = 0;
  for (int j = 0; j < dimension; ++j) {
    bits += extent[j] < 0x1p40 ? std::log2(extent[j]) : std::numeric_limits<double>::infinity();
  }
  return bits;
}

}  // namespace c2am
