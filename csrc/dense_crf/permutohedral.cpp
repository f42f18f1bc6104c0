#include "dense_crf/permutohedral.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "dense_crf/placement.h"
#include "dense_crf/vertex_table.h"
#include "simd.h"

namespace c2am {

__extension__ using WideKey = unsigned __int128;

namespace {

// Embeds points, whose vertices a table numbers.
template <typename Key>
class Embedding {
 public:
  Embedding(const Features& features, const Grid& grid, const Key* places, VertexTable<Key>& table)
      : features_(features), grid_(grid), places_(places), table_(table) {}

  // corner, weight: (N, d + 1), of which the rows first .. last - 1 are set. A corner is what the
  // table says of it.
  void embed(int64_t first, int64_t last, int32_t* corner, float* weight) {
    if (grid_.dimension == 5) {  // the bilateral kernel's, unrolled
      embed(5, first, last, corner, weight);
    } else {
      embed(grid_.dimension, first, last, corner, weight);
    }
  }

 private:
  C2AM_INLINE void embed(int dimension, int64_t first, int64_t last, int32_t* corner,
                         float* weight) {
    const int axes = dimension + 1;
    Placement at{};
    for (; first < last; first += kBatch) {
      const auto count = static_cast<int>(std::min<int64_t>(kBatch, last - first));
      features_.read(first, count, at.features, kBatch);
      place(grid_, &at);
      for (int p = 0; p < count; ++p) set_keys(dimension, at, p, weight + (first + p) * axes);
      for (int p = 0; p < count; ++p) {
        for (int k = 0; k < axes; ++k) {
          corner[(first + p) * axes + k] = static_cast<int32_t>(table_.insert(keys_[p][k]));
        }
      }
    }
  }

  // Keys and barycentric coordinates of the simplex around point p of the batch.
  C2AM_INLINE void set_keys(int dimension, const Placement& at, int p, float* weight) {
    Key key = 0;
    for (int j = 0; j < dimension; ++j) {
      key += static_cast<Key>(static_cast<int64_t>(at.base[j * kBatch + p])) * places_[j];
    }
    double before = 1;
    for (int k = 0; k < dimension; ++k) {
      keys_[p][k] = key;
      table_.prefetch(key);
      const int64_t bits = at.fraction[k * kBatch + p];
      double fraction;
      std::memcpy(&fraction, &bits, sizeof(fraction));
      weight[k] = static_cast<float>(before - fraction);
      before = fraction;
      key += places_[bits & kCoordinate];
    }
    keys_[p][dimension] = key;
    table_.prefetch(key);
    weight[dimension] = static_cast<float>(before);
  }

  const Features& features_;
  const Grid& grid_;
  const Key* places_;
  VertexTable<Key>& table_;
  Key keys_[kBatch][kMaxDimension + 1];
};

// Each thread takes one of these parts of 0 .. n - 1, in their order.
int64_t part(int64_t n, int index, int parts) { return n * index / parts; }

// What numbers the vertices of a word.
struct Numbering {
  uint64_t members;
  int32_t first;  // number of the first of them
};

// Sets keys: (M + 1,), by the number of the vertex, where 0 is none, from the words of all tables,
// which may have several with one key. Returns (words,).
template <typename Key>
Buffer<Numbering> number_vertices(const std::vector<VertexTable<Key>>& tables, Key last,
                                  std::vector<Key>& keys) {
  int64_t count = 0;
  for (const VertexTable<Key>& table : tables) count += table.words();
  Buffer<Word<Key>> words(count);
  Word<Key>* to = words.data();
  for (const VertexTable<Key>& table : tables) to = table.copy(to, to - words.data());
  sort_by_key(words, static_cast<Key>(last / kWord));
  Buffer<Numbering> numbering(count);
  keys.assign(1, ~Key{0});
  for (int64_t begin = 0, end; begin < count; begin = end) {
    uint64_t members = 0;
    for (end = begin; end < count && words[end].key == words[begin].key; ++end) {
      members |= words[end].members;
    }
    const auto first = static_cast<int32_t>(keys.size());
    for (int64_t i = begin; i < end; ++i) numbering[words[i].number] = {members, first};
    for (; members != 0; members &= members - 1) {
      keys.push_back(words[begin].key * kWord + static_cast<Key>(__builtin_ctzll(members)));
    }
  }
  return numbering;
}

// From what the table says of corners to vertices.
C2AM_INLINE void renumber_body(const Numbering* numbering, int32_t* corner, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<uint32_t>(corner[i]);
    const auto [members, first] = numbering[at / kWord];
    const uint64_t before = members & ((uint64_t{1} << at % kWord) - 1);
    corner[i] = first + __builtin_popcountll(before);
  }
}
C2AM_DISPATCH(renumber, (const Numbering* numbering, int32_t* corner, int64_t n),
              (numbering, corner, n))

// Where vertices with another key / place begin, several of them together where they are few, but
// none from both sides of a cut. The missing vertex is in no part.
template <typename Key>
std::vector<int32_t> parts_of(const std::vector<Key>& keys, Key place,
                              const std::vector<int32_t>& cuts) {
  constexpr int32_t kSmall = 1024;
  std::vector<int32_t> starts;
  for (size_t cut = 0; cut + 1 < cuts.size(); ++cut) {
    for (int32_t start = cuts[cut]; start < cuts[cut + 1];) {
      starts.push_back(start);
      const int32_t least = std::min(start + kSmall, cuts[cut + 1]);
      const Key next = (keys[least - 1] / place + 1) * place;
      start = static_cast<int32_t>(
          std::lower_bound(keys.begin() + least, keys.begin() + cuts[cut + 1], next) -
          keys.begin());
    }
  }
  starts.push_back(cuts.back());
  return starts;
}

}  // namespace

[[noreturn]] static void too_large() {
  throw std::invalid_argument(
      "dense_crf: the image is too large, or a standard deviation of a kernel too small");
}

PermutohedralLattice::PermutohedralLattice(const Features& features, int threads)
    : axes(features.dimension + 1),
      points(features.points),
      corner(points * axes + kPadding),
      weight(points * axes) {
  std::fill(corner.end() - kPadding, corner.end(), 0);
  const Grid grid(features);
  const double bits = grid.key_bits();
  if (!(bits < 126) || points * axes > std::numeric_limits<int32_t>::max() - 1) too_large();
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
  for (int t = 0; t < threads; ++t) tables.emplace_back(points / 4 / threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int t = 0; t < threads; ++t) {
    Embedding<Key>(features, grid, places, tables[t])
        .embed(part(points, t, threads), part(points, t + 1, threads), corner.data(),
               weight.data());
  }
  for (const VertexTable<Key>& table : tables) {
    if (table.words() > table.kMostWords) too_large();
  }
  std::vector<Key> keys;
  const Buffer<Numbering> numbering = number_vertices(tables, end, keys);
  vertices = static_cast<int64_t>(keys.size()) - 1;
  std::vector<const Numbering*> own(1, numbering.data());  // of each thread
  for (const VertexTable<Key>& table : tables) own.push_back(own.back() + table.words());
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int t = 0; t < threads; ++t) {
    const int64_t first = part(points, t, threads), last = part(points, t + 1, threads);
    renumber(own[t], corner.data() + first * axes, (last - first) * axes);
  }
  connect(keys, step, threads);
  slabs = parts_of(keys, places[0], {1, static_cast<int32_t>(keys.size())});
  blocks = parts_of(keys, places[std::min(d - 1, 1)], slabs);
  assign_points();
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

void PermutohedralLattice::assign_points() {
  spans.resize(slabs.size() - 1);
  size_t slab = spans.size();
  for (int64_t n = 0; n < points; ++n) {
    const int32_t vertex = corner[n * axes];
    const auto point = static_cast<int32_t>(n);
    if (n > 0 && slabs[slab] <= vertex && vertex < slabs[slab + 1]) {
      ++spans[slab].back().last;
    } else {
      slab = std::upper_bound(slabs.begin(), slabs.end(), vertex) - slabs.begin() - 1;
      spans[slab].push_back({point, point + 1});
    }
  }
}

}  // namespace c2am
