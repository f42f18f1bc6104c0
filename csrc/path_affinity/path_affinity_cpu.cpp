#include <cstring>

#include "pairs.h"
#include "path_affinity/path_affinity.h"

namespace c2am {
namespace {

template <typename T>
struct Band {
  const PairTable& table;
  const T* edge;        // (H, W) of the image
  T* affinity;          // (P, N) of the image
  int64_t first, last;  // rows of sources
};

template <typename T>
struct BackwardBand {
  const PairTable& table;
  const T* edge;        // (H, W) of the image
  const T* grad;        // (P, N) of the image
  double* grad_edge;    // (H, W) of the image
  int64_t first, last;  // rows of sources
};

template <int Bytes, typename T>
C2AM_INLINE void write_affinities_body(const Band<T>& band) {
  constexpr int kLanes = Bytes / sizeof(T);
  using V = Vector<kLanes, T>;
  const PairTable& table = band.table;
  for (int64_t y = band.first; y < band.last; ++y) {
    for (int p = 0; p < table.count(); ++p) {
      T* affinity = band.affinity + (p * table.rows + y) * table.columns;
      for (int64_t column = 0; column < table.columns; column += kLanes) {
        V largest;
        path_maximum(band.edge + table.source(y, column), table, p, largest);
        const V value = 1 - largest;
        if (column + kLanes <= table.columns) {
          store(affinity + column, value);
        } else {
          std::memcpy(affinity + column, &value, (table.columns - column) * sizeof(T));
        }
      }
    }
  }
}
C2AM_DISPATCH_BYTES(write_affinities, (const Band<float>& band), (band))
C2AM_DISPATCH_BYTES(write_affinities, (const Band<double>& band), (band))

template <int Bytes, typename T>
C2AM_INLINE void add_gradients_body(const BackwardBand<T>& band) {
  constexpr int kLanes = Bytes / sizeof(T);
  const PairTable& table = band.table;
  for (int64_t y = band.first; y < band.last; ++y) {
    for (int p = 0; p < table.count(); ++p) {
      const T* grad = band.grad + (p * table.rows + y) * table.columns;
      for (int64_t column = 0; column < table.columns; column += kLanes) {
        const int64_t at = table.source(y, column);
        const int64_t lanes = std::min<int64_t>(kLanes, table.columns - column);
        Vector<kLanes, T> largest;
        Vector<kLanes, Integer<T>> where;
        path_argmaximum(band.edge + at, table, p, largest, where);
        Integer<T> places[kLanes];
        store(places, where);
        for (int64_t i = 0; i < lanes; ++i) band.grad_edge[at + i + places[i]] -= grad[column + i];
      }
    }
  }
}
C2AM_DISPATCH_BYTES(add_gradients, (const BackwardBand<float>& band), (band))
C2AM_DISPATCH_BYTES(add_gradients, (const BackwardBand<double>& band), (band))

}  // namespace

template <typename T>
void path_affinity_cpu(const T* edge, T* affinity, int64_t batch, int64_t height, int64_t width,
                       double radius, int threads) {
  const PairTable table(height, width, radius);
  const int64_t pixels = height * width, pairs = table.count() * table.rows * table.columns;
  const std::vector<T> edges = with_room<T>(edge, batch * pixels);
  for_bands(table, batch, threads, [&](int64_t b, int64_t first, int64_t last) {
    write_affinities(Band<T>{table, edges.data() + b * pixels, affinity + b * pairs, first, last});
  });
}

template <typename T>
void path_affinity_backward_cpu(const T* grad, const T* edge, T* grad_edge, int64_t batch,
                                int64_t height, int64_t width, double radius, int threads) {
  const PairTable table(height, width, radius);
  const int64_t pixels = height * width, pairs = table.count() * table.rows * table.columns;
  const std::vector<T> edges = with_room<T>(edge, batch * pixels);
  std::vector<double> sums(batch * pixels);
  for_bands(table, batch, threads, [&](int64_t b, int64_t first, int64_t last) {
    add_gradients(BackwardBand<T>{table, edges.data() + b * pixels, grad + b * pairs,
                                  sums.data() + b * pixels, first, last});
  });
  std::copy(sums.begin(), sums.end(), grad_edge);
}

template void path_affinity_cpu(const float*, float*, int64_t, int64_t, int64_t, double, int);
template void path_affinity_cpu(const double*, double*, int64_t, int64_t, int64_t, double, int);
template void path_affinity_backward_cpu(const float*, const float*, float*, int64_t, int64_t,
                                         int64_t, double, int);
template void path_affinity_backward_cpu(const double*, const double*, double*, int64_t, int64_t,
                                         int64_t, double, int);

}  // namespace c2am
