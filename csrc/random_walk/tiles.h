// All steps of the walks in one launch: a block of threads keeps a tile of the grid, with the links
// of its pixels, in memory of its own (on a GPU shared memory), and gets from the other blocks what
// surrounds the tile. With a halo `together` times as wide as the longest displacement, as many
// steps pass between two exchanges, over a region that shrinks by that displacement with each step
// (temporal blocking). The blocks wait for each other at every exchange, so all run at once.
#pragma once

#include <cstddef>

#include "random_walk/device.h"

namespace c2am::device {

// What the blocks of one launch have.
struct TileLimits {
  int64_t blocks;  // that run at once
  int64_t bytes;   // of the memory of each
  double barrier;  // what one wait of all blocks costs, in reads of a neighbour by a block
};

// The grid in tiles of `rows` rows and kColumns columns. Cells are those of a tile and its halo,
// row by row.
struct Tiling {
  static constexpr int32_t kColumns = 32;  // adjacent threads read adjacent cells
  static constexpr int32_t kRows = 4;      // rows come in multiples of this
  static constexpr int32_t kMostTogether = 4;

  int32_t rows;      // 0: no tiling
  int32_t together;  // steps between exchanges
  int32_t margin;    // of the longest displacement
  int32_t down, across, fours;

  C2AM_HD int32_t halo() const { return together * margin; }
  C2AM_HD int32_t stride() const { return kColumns + 2 * halo(); }
  C2AM_HD int32_t cells() const { return (rows + 2 * halo()) * stride(); }
  // Pixels of the tile with `ring` rows and columns around it.
  C2AM_HD int32_t grown(int32_t ring) const { return (rows + 2 * ring) * (kColumns + 2 * ring); }
  // The cell of the i-th of these.
  C2AM_HD int32_t cell(int32_t i, int32_t ring) const {
    const int32_t width = kColumns + 2 * ring, y = i / width, inset = halo() - ring;
    return (inset + y) * stride() + inset + i - y * width;
  }
  int64_t blocks() const { return int64_t{down} * across * fours; }
};

// The memory of a block; of none, to learn how large it has to be.
struct TileMemory {
  C2AM_HD TileMemory(const Tiling& tiling, int32_t paths, void* memory) {
    cells = tiling.cells();
    values = static_cast<float*>(memory);
    sum = values + 2 * kFour * cells;
    inverse_degree = sum + kFour * tiling.grown(0);
    planes = inverse_degree + cells;
    ends = reinterpret_cast<int32_t*>(planes + int64_t{paths} * cells);
  }
  static int64_t bytes(const Tiling& tiling, int64_t paths) {
    const int64_t of_cell = 2 * kFour + 1 + paths;
    return sizeof(float) * (tiling.cells() * of_cell + kFour * tiling.grown(0) + paths);
  }

  // The current ones before step k; the previous ones are those before step k + 1.
  C2AM_HD float* values_before(int32_t k) const { return values + k % 2 * (kFour * cells); }

  int32_t cells;
  float* values;          // (2, cells, 4)
  float* sum;             // (rows, kColumns, 4)
  float* inverse_degree;  // (cells,)
  float* planes;          // (P, cells)
  int32_t* ends;          // (P,) distances between cells
};

// The rule by which a launch is made: of the tilings whose blocks run at once the one that takes
// the least time for a step, by an estimate in reads of a neighbour; if there is none, no tiling,
// and each step is a launch.
inline Tiling choose_tiling(int64_t height, int64_t width, int64_t fours, int32_t margin,
                            int64_t paths, const TileLimits& limits) {
  Tiling best{};
  double least = 0;
  for (int32_t together = 1; together <= Tiling::kMostTogether; ++together) {
    Tiling tiling{0, together, margin, 0, 0, static_cast<int32_t>(fours)};
    tiling.across = static_cast<int32_t>((width + Tiling::kColumns - 1) / Tiling::kColumns);
    do {
      tiling.rows += Tiling::kRows;
      tiling.down = static_cast<int32_t>((height + tiling.rows - 1) / tiling.rows);
    } while (tiling.blocks() > limits.blocks && tiling.rows < height);
    if (tiling.blocks() > limits.blocks || TileMemory::bytes(tiling, paths) > limits.bytes) {
      continue;
    }
    double cost = limits.barrier;
    for (int32_t k = 0; k < together; ++k) cost += 2.0 * paths * tiling.grown(k * margin);
    cost /= together;
    if (best.rows == 0 || cost < least) best = tiling, least = cost;
  }
  return best;
}

// The steps of the walks. A team has
//   block, memory   its number and its memory
//   each(n, body)   body(i) for i below n by its threads, which then wait for each other
struct TiledWalk {
  WalkGrid grid;
  WalkPaths paths;
  Tiling tiling;
  const int32_t* cell_ends;              // (P,) distances between cells
  const float *planes, *inverse_degree;  // (P, size), (size,)
  // Exchange n reads the first or the second, and writes the other, whose vectors are then those
  // of the next exchange. The sum is the first's.
  Iterates exchanged[2];
  const WalkTerm* terms;
  int32_t steps;

  // The vectors after n exchanges.
  C2AM_HD Iterates after(int32_t n) const { return n % 2 == 0 ? exchanged[0] : exchanged[1]; }
  C2AM_HD int32_t exchanges() const { return (steps + tiling.together - 1) / tiling.together; }

  // First.
  template <typename Team>
  C2AM_HD void begin(const Team& team) const {
    const TileMemory m(tiling, paths.count, team.memory);
    const Tile tile(*this, team.block);
    const int32_t cells = tiling.cells();
    team.each(paths.count, [&](int32_t p) { m.ends[p] = cell_ends[p]; });
    team.each(cells, [&](int32_t cell) {
      const int64_t at = tile.at(cell);
      m.inverse_degree[cell] = at < 0 ? 0 : inverse_degree[at];
      for (int32_t p = 0; p < paths.count; ++p) {
        m.planes[p * cells + cell] = at < 0 ? 0 : planes[p * grid.size + at];
      }
    });
    team.each(tiling.grown(0), [&](int32_t i) {
      const int32_t cell = tiling.cell(i, 0);
      store(m.values_before(0) + kFour * cell, tile.load_from(exchanged[0].current, cell));
      store(m.values_before(1) + kFour * cell, tile.load_from(exchanged[0].previous, cell));
      store(m.sum + kFour * i, tile.load_from(exchanged[0].sum, cell));
    });
  }

  // Then for n from 0 to exchanges() - 1; all blocks have to be done with one before the next.
  template <typename Team>
  C2AM_HD void exchange(const Team& team, int32_t n) const {
    const TileMemory m(tiling, paths.count, team.memory);
    const Tile tile(*this, team.block);
    const int32_t first = n * tiling.together, left = steps - first;
    const int32_t count = left < tiling.together ? left : tiling.together;
    read_halo(team, m, tile, first, after(n));
    for (int32_t k = 0; k < count; ++k) step(team, m, first + k, (count - 1 - k) * tiling.margin);
    const float *current = m.values_before(first + count),
                *previous = m.values_before(first + count + 1);
    const Iterates to = after(n + 1);
    team.each(tiling.grown(0), [&](int32_t i) {
      const int32_t cell = tiling.cell(i, 0);
      tile.store_to(to.current, cell, load<kFour>(current + kFour * cell));
      if (tiling.together > 1) {
        tile.store_to(to.previous, cell, load<kFour>(previous + kFour * cell));
      }
      if (count == left) tile.store_to(exchanged[0].sum, cell, load<kFour>(m.sum + kFour * i));
    });
  }

 private:
  // A block's tile in the grid.
  struct Tile {
    C2AM_HD Tile(const TiledWalk& walk, int32_t block) : grid(walk.grid), tiling(walk.tiling) {
      const int32_t tiles = tiling.down * tiling.across;
      const int32_t four = block / tiles, tile = block - four * tiles;
      offset = int64_t{four} * grid.size;
      y = tile / tiling.across * tiling.rows - tiling.halo();
      x = tile % tiling.across * Tiling::kColumns - tiling.halo();
    }
    // Where a cell lies in the padded grid; -1: outside of the grid.
    C2AM_HD int64_t at(int32_t cell) const {
      const int32_t row = cell / tiling.stride();
      const int32_t cell_y = y + row, cell_x = x + cell - row * tiling.stride();
      const bool inside = cell_y >= 0 && cell_y < grid.height && cell_x >= 0 && cell_x < grid.width;
      return inside ? grid.begin + cell_y * grid.stride + cell_x : -1;
    }
    C2AM_HD Vec<kFour> load_from(const float* vector, int32_t cell) const {
      const int64_t place = at(cell);
      return place < 0 ? Vec<kFour>::of(0) : load<kFour>(vector + kFour * (offset + place));
    }
    C2AM_HD void store_to(float* vector, int32_t cell, const Vec<kFour>& value) const {
      const int64_t place = at(cell);
      if (place >= 0) store(vector + kFour * (offset + place), value);
    }

    WalkGrid grid;
    Tiling tiling;
    int64_t offset;  // of the four maps
    int32_t y, x;    // of the first cell
  };

  // The halo of the vectors before step k. The previous ones count for steps beyond the tile only.
  template <typename Team>
  C2AM_HD void read_halo(const Team& team, const TileMemory& m, const Tile& tile, int32_t k,
                         const Iterates& from) const {
    const int32_t halo = tiling.halo(), stride = tiling.stride();
    float *current = m.values_before(k), *previous = m.values_before(k + 1);
    team.each(tiling.cells(), [&](int32_t cell) {
      const int32_t row = cell / stride, column = cell - row * stride;
      const bool in_tile = row >= halo && row < halo + tiling.rows && column >= halo &&
                           column < halo + Tiling::kColumns;
      if (in_tile) return;
      store(current + kFour * cell, tile.load_from(from.current, cell));
      if (tiling.together > 1) {
        store(previous + kFour * cell, tile.load_from(from.previous, cell));
      }
    });
  }

  // Step k in the tile and `ring` cells around it.
  template <typename Team>
  C2AM_HD void step(const Team& team, const TileMemory& m, int32_t k, int32_t ring) const {
    const WalkTerm term = terms[k];
    const float* current = m.values_before(k);
    float* previous = m.values_before(k + 1);
    team.each(tiling.grown(ring), [&](int32_t i) {
      const int32_t cell = tiling.cell(i, ring), at = kFour * cell;
      if (m.inverse_degree[cell] == 0) return;  // a wall keeps its 0; NaN would pass through it
      const Vec<kFour> flow =
          flow_into(current + at, m.planes + cell, tiling.cells(), m.ends, paths.count);
      Vec<kFour> next = load<kFour>(previous + at);
      advance(term, load<kFour>(current + at), m.inverse_degree[cell], flow, next);
      store(previous + at, next);
      add_to_sum(m, i, ring, term.coefficient, next);
    });
  }

  // If the i-th pixel of the tile with `ring` cells around it is one of the tile.
  C2AM_HD void add_to_sum(const TileMemory& m, int32_t i, int32_t ring, float coefficient,
                          const Vec<kFour>& value) const {
    const int32_t width = Tiling::kColumns + 2 * ring;
    const int32_t y = i / width - ring, x = i % width - ring;
    if (y < 0 || y >= tiling.rows || x < 0 || x >= Tiling::kColumns) return;
    float* to = m.sum + kFour * (y * Tiling::kColumns + x);
    Vec<kFour> sum = load<kFour>(to);
    sum.add(coefficient, value);
    store(to, sum);
  }
};

}  // namespace c2am::device
