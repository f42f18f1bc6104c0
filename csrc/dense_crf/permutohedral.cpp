#include "dense_crf/permutohedral.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "caught.h"
#include "dense_crf/placement.h"
#include "dense_crf/vertex_table.h"
#include "simd.h"

namespace c2am {

__extension__ using WideKey = unsigned __int128;

namespace {

// Embeds points, whose vertices a table numbers.
template <typename Key, typename Table>
class Embedding {
 public:
  Embedding(const Features& features, const Grid& grid, const Key* places, Table& table)
      : features_(features), grid_(grid), places_(places), table_(table) {
    for (int j = 0; j < grid.dimension; ++j) short_places_[j] = static_cast<uint64_t>(places[j]);
  }

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
      place(grid_, short_places_, &at);
      for (int k = 0; k < axes; ++k) {
        for (int p = 0; p < kBatch; ++p) keys_[k][p] = static_cast<Key>(at.key[k * kBatch + p]);
      }
      if constexpr (sizeof(Key) > sizeof(uint64_t)) set_wide_keys(dimension, at, count);
      for (int k = 0; k < axes; ++k) {
        for (int p = 0; p < count; ++p) table_.prefetch(keys_[k][p]);
      }
      for (int p = 0; p < count; ++p) {
        for (int k = 0; k < axes; ++k) {
          corner[(first + p) * axes + k] = static_cast<int32_t>(table_.insert(keys_[k][p]));
          weight[(first + p) * axes + k] = at.weight[k * kBatch + p];
        }
      }
    }
  }

  void set_wide_keys(int dimension, const Placement& at, int count) {
    for (int p = 0; p < count; ++p) {
      Key key = 0;
      for (int j = 0; j < dimension; ++j) {
        key += static_cast<Key>(static_cast<int64_t>(at.base[j * kBatch + p])) * places_[j];
      }
      for (int k = 0; k < dimension; ++k) {
        keys_[k][p] = key;
        key += places_[at.fraction[k * kBatch + p] & kCoordinate];
      }
      keys_[dimension][p] = key;
    }
  }

  const Features& features_;
  const Grid& grid_;
  const Key* places_;
  uint64_t short_places_[kMaxDimension];  // modulo 2^64
  Table& table_;
  Key keys_[kMaxDimension + 1][kBatch];
};

// From what a table says of corners to vertices. Clears `complete` if the table has lost one.
C2AM_INLINE void renumber_body(const Numbering& numbering, int32_t* corner, int64_t n,
                               bool* complete) {
  uint64_t present = 1;
  for (int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<uint32_t>(corner[i]);
    const uint64_t members = numbering.members[at / kWord];
    present &= members >> at % kWord;
    const uint64_t before = members & ((uint64_t{1} << at % kWord) - 1);
    // Not set if the word is empty, which only a lost vertex meets: it is `present` that counts.
    const auto first = static_cast<uint32_t>(numbering.first[at / kWord]);
    corner[i] = static_cast<int32_t>(first + __builtin_popcountll(before));
  }
  if (present == 0) *complete = false;
}
C2AM_DISPATCH(renumber, (const Numbering& numbering, int32_t* corner, int64_t n, bool* complete),
              (numbering, corner, n, complete))

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
  std::vector<Key> keys(1);  // by the number of the vertex, and then one above all
  keys.reserve(2 * points);
  const auto many = VertexBits::kMostPerPoint * static_cast<uint64_t>(points);
  if (end <= std::min(VertexBits::kMostKeys, many)) {
    embed(VertexBits(static_cast<int64_t>(end), threads), features, grid, places, threads, keys);
  } else {
    embed(VertexTables<Key>(points / 4, threads), features, grid, places, threads, keys);
  }
  vertices = static_cast<int64_t>(keys.size()) - 1;
  keys.push_back(~Key{0});
  slabs = parts_of(keys, places[0], {1, static_cast<int32_t>(vertices + 1)});
  blocks = parts_of(keys, places[std::min(d - 1, 1)], slabs);
  const auto starts = static_cast<int64_t>(blocks.size());
  const int64_t most = vertices + starts + kPadding;  // entries of an axis
  chains = Buffer<uint32_t>(axes * most);
  chain_starts.resize(axes * starts);
  Caught caught;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int task = 0; task <= axes; ++task) {
    caught.run([&] {
      if (task == axes) {
        assign_points();
      } else {
        connect(keys, step[task], task, task * most);
      }
    });
  }
  caught.rethrow();
}

// Sets corner and weight, and appends the keys. Again, if the table lost a vertex: what it has
// stays.
template <typename Tables, typename Key>
void PermutohedralLattice::embed(Tables tables, const Features& features, const Grid& grid,
                                 const Key* places, int threads, std::vector<Key>& keys) {
  bool complete = false;
  for (int workers = threads; !complete; workers = 1) {
    Caught caught;  // tables may grow
#pragma omp parallel for num_threads(workers) schedule(static)
    for (int t = 0; t < threads; ++t) {
      caught.run([&] {
        Embedding(features, grid, places, tables.of(t))
            .embed(part(points, t, threads), part(points, t + 1, threads), corner.data(),
                   weight.data());
      });
    }
    caught.rethrow();
    keys.resize(1);  // as it was: that of the missing vertex
    if (!tables.number(places[0] * static_cast<Key>(grid.extent[0]), keys)) too_large();
    complete = true;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(&& : complete)
    for (int t = 0; t < threads; ++t) {
      const int64_t first = part(points, t, threads), last = part(points, t + 1, threads);
      renumber(tables.numbering(t), corner.data() + first * axes, (last - first) * axes, &complete);
    }
  }
}

namespace {

// The next vertex of each along an axis, or 0, and whether a vertex is the next one of another.
struct Neighbours {
  explicit Neighbours(int64_t vertices) : after(vertices + 1), follows(vertices + 1, false) {}

  Buffer<int32_t> after;
  Buffer<bool> follows;
};

// Keys and keys one step further are both in order, so the next vertices are found side by side;
// for several parts of the vertices in turns, as each step has to wait for the one before.
template <typename Key>
void find_next(const std::vector<Key>& keys, Key step, Neighbours& to) {
  constexpr int kParts = 3;
  const int64_t vertices = to.after.size() - 1;
  const Key* const key = keys.data();
  int32_t* const after = to.after.data();
  bool* const follows = to.follows.data();
  int64_t v[kParts], last[kParts], other[kParts];
  for (int p = 0; p < kParts; ++p) {
    v[p] = 1 + part(vertices, p, kParts);
    last[p] = 1 + part(vertices, p + 1, kParts);
    other[p] =
        std::lower_bound(keys.begin() + v[p], keys.end() - 1, keys[v[p]] + step) - keys.begin();
  }
  const auto advance = [&](int p) {
    const Key wanted = key[v[p]] + step, present = key[other[p]];
    const int64_t next = other[p] & -int64_t{wanted == present};
    after[v[p]] = static_cast<int32_t>(next);
    follows[next] = true;
    v[p] += wanted <= present;
    other[p] += present <= wanted;
  };
  for (int64_t steps = vertices / kParts; steps > 0;) {
    for (; steps > 0; --steps) {
      for (int p = 0; p < kParts; ++p) advance(p);
    }
    steps = last[0] - v[0];
    for (int p = 1; p < kParts; ++p) steps = std::min(steps, last[p] - v[p]);
  }
  for (int p = 0; p < kParts; ++p) {
    while (v[p] < last[p]) advance(p);
  }
}

}  // namespace

// Writes the chains of an axis, along which keys are `step` apart, from the entry `at` on.
template <typename Key>
void PermutohedralLattice::connect(const std::vector<Key>& keys, Key step, int axis, int64_t at) {
  Neighbours neighbours(vertices);
  find_next(keys, step, neighbours);
  const int32_t* after = neighbours.after.data();
  const bool* follows = neighbours.follows.data();
  const size_t starts = blocks.size();
  int64_t* start = chain_starts.data() + axis * starts;
  uint32_t* to = chains.data() + at;
  std::vector<int32_t> firsts;
  for (size_t b = 0; b + 1 < starts; ++b) {
    start[b] = to - chains.data();
    firsts.resize(blocks[b + 1] - blocks[b]);
    int32_t* end = firsts.data();
    for (int32_t v = blocks[b]; v < blocks[b + 1]; ++v) {  // without a branch: it would be a guess
      *end = v;
      end += (after[v] != 0) & !follows[v];
    }
    for (const int32_t* first = firsts.data(); first < end; ++first) {
      *to++ = 2 * static_cast<uint32_t>(*first) + 1;
      for (int32_t next = after[*first]; next != 0; next = after[next]) {
        *to++ = 2 * static_cast<uint32_t>(next);
      }
    }
    *to++ = 1;
  }
  start[starts - 1] = to - chains.data();
  std::fill_n(to, kPadding, 1);
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
