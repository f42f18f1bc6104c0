#include "dense_crf/permutohedral.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "dense_crf/vertex_table.h"
#include "simd.h"

namespace c2am {

__extension__ using WideKey = unsigned __int128;

namespace {

constexpr int kMaxDimension = PermutohedralLattice::kMaxDimension;
constexpr int kBatch = 32;  // points that are placed together

// Points in the lattice: the Kuhn simplex around each.
struct Placement {
  double features[kMaxDimension * kBatch];
  double base[kMaxDimension * kBatch];      // coordinates of the simplex's first vertex
  double fraction[kMaxDimension * kBatch];  // in descending order
  int64_t raised[kMaxDimension * kBatch];   // the coordinate that the fraction is of
};

// Position j = sqrt(2/3) (sum of f_i / sqrt(i (i + 1)) over i < j, + f_j sqrt((j + 1) / j)), j from
// 1: the elevated coordinates of Adams et al. 2010 (Sec. 3.1), (e_0 - e_j) / (d + 1), scaled so
// that the blur's standard deviation is one unit of every feature. Increasing in every feature.
struct Slopes {
  double own, later;
};
Slopes slopes(int j) {
  return {std::sqrt(2.0 / 3.0 * (j + 1) / j), std::sqrt(2.0 / 3.0 / (j * (j + 1.0)))};
}

C2AM_INLINE void place_points(int dimension, const Slopes* slope, Placement* at) {
  double sum[kBatch] = {};
  for (int j = 0; j < dimension; ++j) {
    // Backwards, since of equal fractions that of the last coordinate comes first.
    const int to = (dimension - 1 - j) * kBatch;
    for (int p = 0; p < kBatch; ++p) {
      const double feature = at->features[j * kBatch + p];
      const double position = sum[p] + slope[j].own * feature;
      const double base = std::floor(position);
      sum[p] += slope[j].later * feature;
      at->base[j * kBatch + p] = base;
      at->fraction[to + p] = position - base;
      at->raised[to + p] = j;
    }
  }
  for (int end = dimension - 1; end > 0; --end) {
    for (int k = 0; k < end; ++k) {
      double *left = at->fraction + k * kBatch, *right = left + kBatch;
      int64_t *left_raised = at->raised + k * kBatch, *right_raised = left_raised + kBatch;
      for (int p = 0; p < kBatch; ++p) {
        const double a = left[p], b = right[p];
        const int64_t of_a = left_raised[p], of_b = right_raised[p];
        left[p] = b > a ? b : a;
        right[p] = b > a ? a : b;
        left_raised[p] = b > a ? of_b : of_a;
        right_raised[p] = b > a ? of_a : of_b;
      }
    }
  }
}

C2AM_INLINE void place_body(int dimension, const Slopes* slope, Placement* at) {
  if (dimension == 5) {  // the bilateral kernel's, unrolled
    place_points(5, slope, at);
  } else {
    place_points(dimension, slope, at);
  }
}

}  // namespace

C2AM_DISPATCH(place, (int dimension, const Slopes* slope, Placement* at), (dimension, slope, at))

// The bounds of all coordinates of vertices and their neighbours.
struct Grid {
  Slopes slope[kMaxDimension];
  double lowest[kMaxDimension], extent[kMaxDimension];

  explicit Grid(const Features& features) {
    double low_sum = 0, high_sum = 0;
    for (int j = 0; j < features.dimension; ++j) {
      const auto [own, later] = slope[j] = slopes(j + 1);
      // In the very steps of `place`, so that rounding keeps the order.
      const double low = std::floor(low_sum + own * features.low[j]);
      const double high = std::floor(high_sum + own * features.high[j]);
      low_sum += later * features.low[j];
      high_sum += later * features.high[j];
      lowest[j] = low - 1;
      extent[j] = high - low + 4;
    }
  }

  // Infinite where a coordinate is too large for float64 to tell it from the next one.
  double key_bits(int dimension) const {
    double bits = 0;
    for (int j = 0; j < dimension; ++j) {
      bits += extent[j] < 0x1p40 ? std::log2(extent[j]) : std::numeric_limits<double>::infinity();
    }
    return bits;
  }
};

namespace {

// Embeds points, whose vertices a table numbers.
template <typename Key>
class Embedding {
 public:
  Embedding(const Features& features, const Grid& grid, const Key* places, VertexTable<Key>& table)
      : features_(features), grid_(grid), places_(places), table_(table) {}

  // corner, weight: (N, d + 1), of which the rows first .. last - 1 are set.
  void embed(int64_t first, int64_t last, int32_t* corner, float* weight) {
    const int axes = features_.dimension + 1;
    Placement at{};
    for (; first < last; first += kBatch) {
      const auto count = static_cast<int>(std::min<int64_t>(kBatch, last - first));
      features_.read(first, count, at.features, kBatch);
      place(features_.dimension, grid_.slope, &at);
      for (int p = 0; p < count; ++p) set_keys(at, p, weight + (first + p) * axes);
      for (int p = 0; p < count; ++p) {
        for (int k = 0; k < axes; ++k) corner[(first + p) * axes + k] = table_.insert(keys_[p][k]);
      }
    }
  }

 private:
  // Keys and barycentric coordinates of the simplex around point p of the batch.
  void set_keys(const Placement& at, int p, float* weight) {
    Key key = 0;
    for (int j = 0; j < features_.dimension; ++j) {
      const auto coordinate = static_cast<int64_t>(at.base[j * kBatch + p] - grid_.lowest[j]);
      key += static_cast<Key>(coordinate) * places_[j];
    }
    double before = 1;
    for (int k = 0;; ++k) {
      keys_[p][k] = key;
      table_.prefetch(key);
      const bool last = k == features_.dimension;
      const double fraction = last ? 0 : at.fraction[k * kBatch + p];
      weight[k] = static_cast<float>(before - fraction);
      if (last) break;
      before = fraction;
      key += places_[at.raised[k * kBatch + p]];
    }
  }

  const Features& features_;
  const Grid& grid_;
  const Key* places_;
  VertexTable<Key>& table_;
  Key keys_[kBatch][kMaxDimension + 1];
};

// Each thread takes one of these parts of 0 .. n - 1, in their order.
int64_t part(int64_t n, int index, int parts) { return n * index / parts; }

}  // namespace

PermutohedralLattice::PermutohedralLattice(const Features& features, int threads)
    : axes(features.dimension + 1),
      points(features.points),
      corner(points * axes + kPadding),
      weight(points * axes) {
  std::fill(corner.end() - kPadding, corner.end(), 0);
  const Grid grid(features);
  const double bits = grid.key_bits(features.dimension);
  if (!(bits < 126) || points * axes > std::numeric_limits<int32_t>::max() - 1) {
    throw std::invalid_argument(
        "dense_crf: the image is too large, or a standard deviation of a kernel too small");
  }
  if (bits < 31) {
    build<uint32_t>(features, grid, threads);
  } else if (bits < 63) {
    build<uint64_t>(features, grid, threads);
  } else {
    build<WideKey>(features, grid, threads);
  }
}

// A key is a vertex's coordinates in a mixed radix, so that a step along an axis adds a constant.
template <typename Key>
void PermutohedralLattice::build(const Features& features, const Grid& grid, int threads) {
  const int d = features.dimension;
  Key places[kMaxDimension], step[kMaxDimension + 1] = {0}, end = 1;
  for (int j = d - 1; j >= 0; --j) {
    places[j] = step[j + 1] = end;
    step[0] += end;
    end *= static_cast<Key>(grid.extent[j]);
  }
  std::vector<VertexTable<Key>> tables;
  for (int t = 0; t < threads; ++t) tables.emplace_back(points / 2 / threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int t = 0; t < threads; ++t) {
    Embedding<Key>(features, grid, places, tables[t])
        .embed(part(points, t, threads), part(points, t + 1, threads), corner.data(),
               weight.data());
  }
  std::vector<Vertex<Key>> found;
  std::vector<int32_t> offset;
  for (const VertexTable<Key>& table : tables) {
    offset.push_back(static_cast<int32_t>(found.size()));
    for (const Key& key : table.keys()) {
      found.push_back({key, static_cast<int32_t>(found.size())});
    }
  }
  sort_by_key(found, end);
  std::vector<Key> keys(1, ~Key{0});  // the missing vertex has none
  std::vector<int32_t> number(found.size());
  for (const Vertex<Key>& vertex : found) {
    if (keys.size() == 1 || keys.back() != vertex.key) keys.push_back(vertex.key);
    number[vertex.number] = static_cast<int32_t>(keys.size() - 1);
  }
  vertices = static_cast<int64_t>(keys.size()) - 1;
  std::vector<Buffer<int32_t>> counts(threads);  // of entries, by thread and vertex
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int t = 0; t < threads; ++t) {
    counts[t] = Buffer<int32_t>(vertices + 1, 0);
    const int64_t last = part(points, t + 1, threads) * axes;
    for (int64_t i = part(points, t, threads) * axes; i < last; ++i) {
      corner[i] = number[offset[t] + corner[i]];
      ++counts[t][corner[i]];
    }
  }
  connect(keys, step, threads);
  divide(keys, d > 2 ? places[1] : end);
  transpose(counts);
}

// Keys and keys one step further are both in order, so the neighbours are found side by side. A
// thread takes the vertices first .. last - 1 and those others that lie one step from between them.
template <typename Key>
void PermutohedralLattice::connect(const std::vector<Key>& keys, const Key* step, int threads) {
  neighbours = Buffer<int32_t>(axes * (vertices + 1) * 2 + kPadding);
  std::fill(neighbours.end() - kPadding, neighbours.end(), 0);
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
  for (int axis = 0; axis < axes; ++axis) {
    for (int t = 0; t < threads; ++t) {
      int32_t* pair = neighbours.data() + axis * (vertices + 1) * 2;
      const auto others_from = [&](int index) {
        if (index == 0) return int64_t{1};
        if (index == threads) return vertices + 1;
        const Key wanted = keys[1 + part(vertices, index, threads)] + step[axis];
        return std::lower_bound(keys.begin() + 1, keys.end(), wanted) - keys.begin();
      };
      int64_t v = 1 + part(vertices, t, threads), other = others_from(t);
      const int64_t last = 1 + part(vertices, t + 1, threads), others = others_from(t + 1);
      if (t == 0) pair[0] = pair[1] = 0;
      while (v < last && other < others) {
        const Key wanted = keys[v] + step[axis], present = keys[other];
        const bool same = wanted == present;
        pair[2 * v] = same ? static_cast<int32_t>(other) : 0;
        pair[2 * other + 1] = same ? static_cast<int32_t>(v) : 0;
        v += wanted <= present;
        other += present <= wanted;
      }
      for (; v < last; ++v) pair[2 * v] = 0;
      for (; other < others; ++other) pair[2 * other + 1] = 0;
    }
  }
}

// Blocks of vertices with the same key / place, several together where they are small. The missing
// vertex is in none: after two axes its values are 0 in either buffer of the blur.
template <typename Key>
void PermutohedralLattice::divide(const std::vector<Key>& keys, Key place) {
  constexpr int64_t kSmall = 1024;
  blocks.assign(1, 1);
  for (int64_t v = 2; v <= vertices; ++v) {
    if (v - blocks.back() >= kSmall && keys[v] / place != keys[v - 1] / place) {
      blocks.push_back(static_cast<int32_t>(v));
    }
  }
  blocks.push_back(static_cast<int32_t>(vertices + 1));
}

// next: for each thread and vertex how many entries there are, then where the next one goes.
void PermutohedralLattice::transpose(std::vector<Buffer<int32_t>>& next) {
  const auto threads = static_cast<int>(next.size());
  start = Buffer<int32_t>(vertices + 2);
  int32_t sum = 0;  // of groups
  for (int64_t v = 0; v <= vertices; ++v) {
    start[v] = sum;
    int32_t at = sum * kGroup;
    for (Buffer<int32_t>& of_thread : next) {
      const int32_t count = of_thread[v];
      of_thread[v] = at;
      at += count;
    }
    sum = (at + kGroup - 1) / kGroup;
  }
  start[vertices + 1] = sum;
  groups = Buffer<Group>(sum);
  entries = Buffer<Entry>(int64_t{sum} * kGroup + kPadding);
  std::fill(entries.end() - kPadding, entries.end(), Entry{0, 0});
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(static)
    for (int64_t v = 1; v <= vertices; ++v) {
      for (int32_t g = start[v]; g < start[v + 1]; ++g) {
        groups[g] = {static_cast<int32_t>(v), g == start[v] ? 0.0f : 1.0f};
      }
      std::fill_n(entries.data() + (int64_t{start[v + 1]} - 1) * kGroup, kGroup, Entry{0, 0});
    }
#pragma omp for schedule(static)
    for (int t = 0; t < threads; ++t) {
      for (int64_t n = part(points, t, threads); n < part(points, t + 1, threads); ++n) {
        for (int64_t i = n * axes; i < (n + 1) * axes; ++i) {
          __builtin_prefetch(&entries[next[t][corner[i + kPadding]]], 1);
          entries[next[t][corner[i]]++] = {static_cast<int32_t>(n), weight[i]};
        }
      }
    }
  }
}

}  // namespace c2am
