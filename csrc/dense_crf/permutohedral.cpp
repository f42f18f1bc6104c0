#include "dense_crf/permutohedral.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace c2am {
namespace {

constexpr int kDim = PermutohedralLattice::kDim;
constexpr int kCorners = PermutohedralLattice::kCorners;
__extension__ using WideKey = unsigned __int128;

using Features = std::array<double, kDim>;
using Coordinates = std::array<int32_t, kCorners>;

// The simplex around a point: its corner k has the coordinates zero[i] + (rank[i] <= d - k ? k :
// k - d - 1). The last coordinate of a vertex follows from the others, which sum with it to 0.
struct Simplex {
  Coordinates zero, rank;
  std::array<double, kCorners> weight;
};

// The features times the lattice's basis (Adams et al. 2010, Sec. 3.1), scaled so that the blur's
// standard deviation becomes one unit of every feature.
std::array<double, kCorners> elevate(const Features& features) {
  static const Features scale = [] {
    Features s;
    for (int i = 0; i < kDim; ++i) {
      s[i] = std::sqrt(2.0 / 3.0) * kCorners / std::sqrt((i + 1.0) * (i + 2.0));
    }
    return s;
  }();
  std::array<double, kCorners> elevated;
  double sum = 0;
  for (int j = kDim; j > 0; --j) {
    const double value = features[j - 1] * scale[j - 1];
    elevated[j] = sum - j * value;
    sum += value;
  }
  elevated[0] = sum;
  return elevated;
}

// Adams et al. 2010, Sec. 3.1: round to the nearest point whose coordinates are multiples of d + 1,
// rank the differences, and walk back to the hyperplane if the rounded point left it.
Simplex enclosing_simplex(const Features& features) {
  const std::array<double, kCorners> elevated = elevate(features);
  Simplex s;
  int excess = 0;
  for (int i = 0; i < kCorners; ++i) {
    const double down = std::floor(elevated[i] / kCorners) * kCorners;
    const double up = std::ceil(elevated[i] / kCorners) * kCorners;
    s.zero[i] = static_cast<int32_t>(up - elevated[i] < elevated[i] - down ? up : down);
    excess += s.zero[i] / kCorners;
  }
  s.rank.fill(0);
  for (int i = 0; i < kCorners; ++i) {
    for (int j = i + 1; j < kCorners; ++j) {
      const bool less = elevated[i] - s.zero[i] < elevated[j] - s.zero[j];
      ++s.rank[less ? i : j];
    }
  }
  for (int i = 0; i < kCorners; ++i) {
    s.rank[i] += excess;
    const int wrap = s.rank[i] < 0 ? kCorners : s.rank[i] > kDim ? -kCorners : 0;
    s.rank[i] += wrap;
    s.zero[i] += wrap;
  }
  // Differences in descending order; the coordinates are the gaps between successive ones.
  std::array<double, kCorners> sorted;
  for (int i = 0; i < kCorners; ++i) {
    sorted[s.rank[i]] = (elevated[i] - s.zero[i]) / kCorners;
  }
  for (int k = 1; k < kCorners; ++k) s.weight[k] = sorted[kDim - k] - sorted[kCorners - k];
  s.weight[0] = 1 + sorted[kDim] - sorted[0];
  return s;
}

// Vertices by key, numbered from 1 in the order of their insertion. Open addressing.
template <typename Key>
class VertexTable {
 public:
  explicit VertexTable(int64_t expected) : keys_(1) {
    int64_t capacity = 1024;
    while (capacity < expected) capacity *= 2;
    slots_.assign(capacity, 0);
  }

  int32_t find(Key key) const { return slots_[slot_of(key)]; }

  int32_t insert(Key key) {
    const size_t slot = slot_of(key);
    if (slots_[slot] != 0) return slots_[slot];
    const auto vertex = static_cast<int32_t>(keys_.size());
    slots_[slot] = vertex;
    keys_.push_back(key);
    if (2 * keys_.size() > slots_.size()) grow();
    return vertex;
  }

  int64_t size() const { return static_cast<int64_t>(keys_.size()) - 1; }
  Key key(int32_t vertex) const { return keys_[vertex]; }

 private:
  // The slot that holds the key, or the free one in which it belongs.
  size_t slot_of(Key key) const {
    const size_t mask = slots_.size() - 1;
    auto mixed = static_cast<uint64_t>(key);
    if constexpr (sizeof(Key) > 8) mixed ^= static_cast<uint64_t>(key >> 64) * 0xD6E8FEB86659FD93u;
    mixed *= 0x9E3779B97F4A7C15u;
    size_t slot = (mixed >> 32) & mask;
    while (slots_[slot] != 0 && keys_[slots_[slot]] != key) slot = (slot + 1) & mask;
    return slot;
  }

  void grow() {
    slots_.assign(2 * slots_.size(), 0);
    for (size_t v = 1; v < keys_.size(); ++v) slots_[slot_of(keys_[v])] = static_cast<int32_t>(v);
  }

  std::vector<int32_t> slots_;
  std::vector<Key> keys_;
};

}  // namespace

// Where the pixels lie in the lattice.
struct PermutohedralLattice::Embedding {
  std::vector<Coordinates> zero, rank;  // (N,)
  std::array<int64_t, kDim> lowest;     // of any key or neighbour of one, by coordinate
  std::array<int64_t, kDim> extent;

  void measure() {
    for (int i = 0; i < kDim; ++i) {
      int32_t low = zero[0][i], high = zero[0][i];
      for (const Coordinates& z : zero) {
        low = std::min(low, z[i]);
        high = std::max(high, z[i]);
      }
      // A corner is up to d away, and its neighbour as much again.
      lowest[i] = int64_t{low} - 2 * kDim;
      extent[i] = int64_t{high} - low + 4 * kDim + 1;
    }
  }

  double key_bits() const {
    double bits = 0;
    for (int64_t e : extent) bits += std::log2(static_cast<double>(e));
    return bits;
  }
};

PermutohedralLattice::PermutohedralLattice(const uint8_t* image, int64_t height, int64_t width,
                                           double sxy, double srgb, int threads)
    : pixels(height * width) {
  // Coordinates grow by less than 10 for each standard deviation; five of 25 bits fit a wide key.
  const double widest = std::max({width / sxy, height / sxy, 255 / srgb});
  if (!(widest * 10 < 1 << 23) || pixels * kCorners > std::numeric_limits<int32_t>::max() - 1) {
    throw std::invalid_argument(
        "dense_crf: the image is too large, or bilateral_sxy or bilateral_srgb too small");
  }
  Embedding embedding;
  embedding.zero.resize(pixels);
  embedding.rank.resize(pixels);
  weight.resize(pixels * kCorners);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const int64_t i = y * width + x;
      const uint8_t* rgb = image + 3 * i;
      const Simplex s =
          enclosing_simplex({x / sxy, y / sxy, rgb[0] / srgb, rgb[1] / srgb, rgb[2] / srgb});
      embedding.zero[i] = s.zero;
      embedding.rank[i] = s.rank;
      std::copy(s.weight.begin(), s.weight.end(), weight.begin() + i * kCorners);
    }
  }
  embedding.measure();
  if (embedding.key_bits() < 64) {
    build<uint64_t>(embedding);
  } else {
    build<WideKey>(embedding);
  }
  transpose();
}

// Numbers the vertices and finds their neighbours. A key is the vertex's first d coordinates in a
// mixed radix, so that moving along an axis adds a constant to it.
template <typename Key>
void PermutohedralLattice::build(const Embedding& embedding) {
  std::array<Key, kCorners> place;  // the last coordinate has no place in the key
  place.fill(0);
  Key all = 0, radix = 1;
  for (int i = 0; i < kDim; ++i) {
    place[i] = radix;
    all += radix;
    radix *= static_cast<Key>(embedding.extent[i]);
  }
  VertexTable<Key> table(pixels / 2);
  corner.resize(pixels * kCorners);
  std::array<Key, kCorners> last_key;
  last_key.fill(~Key{0});
  for (int64_t n = 0; n < pixels; ++n) {
    const Coordinates &zero = embedding.zero[n], &rank = embedding.rank[n];
    std::array<Key, kCorners> of_rank;
    Key key = 0;
    for (int i = 0; i < kCorners; ++i) {
      of_rank[rank[i]] = place[i];
      if (i < kDim) key += static_cast<Key>(zero[i] - embedding.lowest[i]) * place[i];
    }
    for (int k = 0; k < kCorners; ++k) {
      // From corner k - 1 to k every coordinate grows by 1, but that of rank d + 1 - k falls by d.
      if (k > 0) key += all - kCorners * of_rank[kCorners - k];
      // Neighbouring pixels mostly share their simplex.
      const bool same = key == last_key[k];
      corner[n * kCorners + k] = same ? corner[(n - 1) * kCorners + k] : table.insert(key);
      last_key[k] = key;
    }
  }
  vertices = table.size();
  neighbours.assign(kCorners * (vertices + 1) * 2, 0);
  for (int axis = 0; axis < kCorners; ++axis) {
    int32_t* pair = neighbours.data() + axis * (vertices + 1) * 2;
    for (int32_t v = 1; v <= vertices; ++v) {
      const int32_t other = table.find(table.key(v) + all - kCorners * place[axis]);
      if (other == 0) continue;
      pair[2 * v] = other;
      pair[2 * other + 1] = v;
    }
  }
}

void PermutohedralLattice::transpose() {
  start.assign(vertices + 2, 0);
  for (int32_t v : corner) ++start[v + 1];
  for (int64_t v = 0; v <= vertices; ++v) start[v + 1] += start[v];
  entry_pixel.resize(corner.size());
  entry_weight.resize(corner.size());
  std::vector<int32_t> next(start.begin(), start.end());
  for (size_t i = 0; i < corner.size(); ++i) {
    const int32_t at = next[corner[i]]++;
    entry_pixel[at] = static_cast<int32_t>(i / kCorners);
    entry_weight[at] = weight[i];
  }
}

}  // namespace c2am
