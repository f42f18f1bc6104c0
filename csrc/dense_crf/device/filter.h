// Filtering on the lattice. Channels lie in rows: the `width` values of a pixel or of a vertex are
// adjacent, and a thread takes V of them, as the `lane`-th of the threads of its row.
#pragma once

#include "dense_crf/device/lattice.h"

namespace c2am::device {

// For each tile of entries: values[v] = sum of weight * from[point] for the vertices within it. Of
// those that go on in other tiles it writes partial sums, `partial[2 tile]` if they began earlier
// and `partial[2 tile + 1]` if here.
template <int V, typename T>
struct Splat {
  Lattice lattice;
  const float* from;  // (N, width)
  int width;
  T* values;       // (M + 1, width)
  float* partial;  // (tiles, 2, width)

  C2AM_HD void operator()(int64_t tile, int lane) const {
    constexpr int kTogether = 4;  // whose loads are under way at the same time
    const int channel = lane * V;
    const int64_t first = tile * kTile;
    const int64_t last = first + kTile < lattice.count() ? first + kTile : lattice.count();
    bool began_earlier = !lattice.entries[first].first();
    Vec<V> sum = Vec<V>::of(0);
    if (tile == 0) store<V>(values + channel, sum);  // of the missing vertex
    T* to = values + int64_t{lattice.tile_vertex[tile]} * width + channel;
    float* partial_to = partial + 2 * tile * width + channel;
    for (int64_t i = first; i < last; i += kTogether) {
      Entry entry[kTogether];
      Vec<V> value[kTogether];
      for (int j = 0; j < kTogether; ++j) {
        entry[j] = lattice.entries[i + j < last ? i + j : first];
        value[j] = load<V>(from + entry[j].point() * width + channel);
      }
      for (int j = 0; j < kTogether; ++j) {
        if (i + j >= last) continue;
        if (i + j > first && entry[j].first()) {
          if (began_earlier) {
            store<V>(partial_to, sum);
          } else {
            store<V>(to, sum);
          }
          sum = Vec<V>::of(0);
          began_earlier = false;
          to += width;
        }
        sum.add(entry[j].weight, value[j]);
      }
    }
    const bool goes_on = last < lattice.count() && !lattice.entries[last].first();
    if (began_earlier || goes_on) {
      store<V>(partial_to + (began_earlier ? 0 : width), sum);
    } else {
      store<V>(to, sum);
    }
  }
};

// For each tile, by a team: the sum of the vertex that begins in it and goes on in others.
template <int V, typename T, int Lanes>
struct SplatAcross {
  Lattice lattice;
  int width;
  const float* partial;  // (tiles, 2, width)
  T* values;             // (M + 1, width)

  C2AM_HD void operator()(int64_t tile, int lane) const {
    const int64_t next = (tile + 1) * kTile;
    if (next >= lattice.count() || lattice.entries[next].first()) return;
    const int64_t vertex = lattice.tile_vertex[tile + 1];
    if (lattice.start[vertex] < tile * kTile) return;  // it began earlier
    const int64_t last = (lattice.start[vertex + 1] - 1) / kTile;
    for (int channel = 0; channel < width; channel += V) {
      Vec<V> sum = Vec<V>::of(0);
      if (lane == 0) sum = load<V>(partial + (2 * tile + 1) * width + channel);
      for (int64_t t = tile + 1 + lane; t <= last; t += Lanes) {
        sum.add(1, load<V>(partial + 2 * t * width + channel));
      }
      for (int j = 0; j < V; ++j) sum.at[j] = team_sum<Lanes>(sum.at[j]);
      if (lane == 0) store<V>(values + vertex * width + channel, sum);
    }
  }
};

// For each vertex, from the missing one on: to[v] = from[v] + (from[after] + from[before]) / 2.
template <int V, typename T>
struct Blur {
  const Neighbours* neighbours;  // (M + 1,) along the axis
  const T* from;                 // (M + 1, width)
  int width;
  T* to;  // (M + 1, width)

  C2AM_HD void operator()(int64_t vertex, int lane) const {
    const Neighbours along = neighbours[vertex];
    const int channel = lane * V;
    const Vec<V> after = load<V>(from + int64_t{along.after} * width + channel);
    const Vec<V> before = load<V>(from + int64_t{along.before} * width + channel);
    Vec<V> sum = load<V>(from + vertex * width + channel);
    sum.add(0.5f, after);
    sum.add(0.5f, before);
    store<V>(to + vertex * width + channel, sum);
  }
};

// sum of weight * values[corner] over the corners of a point.
template <int V, typename T>
C2AM_HD Vec<V> slice(const Lattice& lattice, const T* values, int width, int64_t n, int channel) {
  Vec<V> sum = Vec<V>::of(0);
  for (int k = 0; k < kAxes; ++k) {
    const int64_t vertex = lattice.corner[k * lattice.points + n];
    sum.add(lattice.weight[k * lattice.points + n], load<V>(values + vertex * width + channel));
  }
  return sum;
}

// For each point: n_i = (sum_j k_ij + 1e-20)^-1/2 from the filtered ones, and the scale of
// messages.
struct Normalise {
  Lattice lattice;
  const float* sums;  // (M + 1,)
  float gain;         // of the blur, as lattice_gain of lattice_filter.h
  double compat;
  float* norm;  // (N,)

  C2AM_HD void operator()(int64_t n, int) const {
    const float sum = gain * slice<1>(lattice, sums, 1, n, 0).at[0];
    const double value = 1 / sqrt(sum + 1e-20);
    norm[n] = static_cast<float>(value);
    lattice.scale[n] = static_cast<float>(compat * gain * value);
  }
};

// For each entry: n_j into its weight, so that splatting Q_j splats n_j Q_j.
struct ScaleEntries {
  Lattice lattice;
  const float* norm;  // (N,)

  C2AM_HD void operator()(int64_t i, int) const {
    Entry& entry = lattice.entries[i];
    entry.weight *= norm[entry.point()];
  }
};

}  // namespace c2am::device
