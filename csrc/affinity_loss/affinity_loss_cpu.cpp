#include <cmath>

#include "affinity_loss/affinity_loss.h"
#include "pairs.h"

namespace c2am {
namespace {

constexpr double kEpsilon = 1e-5;
constexpr int kKinds = 3;  // fg_positive, bg_positive, negative; then pairs with a void end

template <typename T>
struct Band {
  const PairTable& table;
  const T* edge;            // (H, W) of the image
  const Integer<T>* label;  // (H, W) of the image
  int32_t* counts;          // (4, H, W) of the image
  int64_t first, last;      // rows of sources
};

// counts[kind][arg-max of the path] += 1 for every pair of the band.
template <int Bytes, typename T>
C2AM_INLINE void count_pairs_body(const Band<T>& band) {
  constexpr int kLanes = Bytes / sizeof(T), kSign = 8 * sizeof(T) - 1;
  using V = Vector<kLanes, T>;
  using I = Vector<kLanes, Integer<T>>;
  const PairTable& table = band.table;
  const I fg = {}, bg = fg + static_cast<Integer<T>>(table.height * table.width);
  const I negative = 2 * bg, none = 3 * bg;
  for (int64_t y = band.first; y < band.last; ++y) {
    for (int64_t column = 0; column < table.columns; column += kLanes) {
      const int64_t at = table.source(y, column);
      const int64_t lanes = std::min<int64_t>(kLanes, table.columns - column);
      V largest;
      I where, source, target;
      load(source, band.label + at);
      const I positive = source > 0 ? fg : bg;
      for (int p = 0; p < table.count(); ++p) {
        path_argmaximum(band.edge + at, table, p, largest, where);
        load(target, band.label + at + table.step(p));
        const I kind = source == target ? positive : negative;
        const I is_void = (source | target) >> kSign;  // all bits or none
        where += (none & is_void) | (kind & ~is_void);
        Integer<T> places[kLanes];
        store(places, where);
        for (int64_t i = 0; i < lanes; ++i) ++band.counts[at + i + places[i]];
      }
    }
  }
}
C2AM_DISPATCH_BYTES(count_pairs, (const Band<float>& band), (band))
C2AM_DISPATCH_BYTES(count_pairs, (const Band<double>& band), (band))

// The sums over the pixels of one image: of the pairs, and of their losses.
struct Sums {
  double counts[kKinds] = {}, losses[kKinds] = {};
};

double likelihood(int kind, double edge) { return (kind == 2 ? edge : 1 - edge) + kEpsilon; }

template <typename T>
Sums sum_image(const T* edge, const int32_t* counts, int64_t pixels) {
  Sums sums;
  for (int kind = 0; kind < kKinds; ++kind) {
    for (int64_t i = 0; i < pixels; ++i) {
      const double count = counts[kind * pixels + i];
      if (count == 0) continue;
      sums.counts[kind] += count;
      sums.losses[kind] -= count * std::log(likelihood(kind, static_cast<double>(edge[i])));
    }
  }
  return sums;
}

// d(-log(1 - m + e)) / dm = 1 / (1 - m + e), d(-log(m + e)) / dm = -1 / (m + e).
template <typename T>
void write_gradient(int kind, double pairs, const T* edge, const int32_t* counts, T* gradient,
                    int64_t pixels) {
  const double weight = (kind == 2 ? -1 : 1) / (pairs + kEpsilon);
  for (int64_t i = 0; i < pixels; ++i) {
    const double slope = weight / likelihood(kind, static_cast<double>(edge[i]));
    gradient[i] = static_cast<T>(slope * counts[i]);
  }
}

}  // namespace

template <typename T>
void affinity_loss_cpu(const T* edge, const T* label, T* losses, T* gradients, int64_t batch,
                       int64_t height, int64_t width, double radius, int threads) {
  const PairTable table(height, width, radius);
  const int64_t pixels = height * width;
  const std::vector<T> edges = with_room<T>(edge, batch * pixels);
  const std::vector<Integer<T>> labels = with_room<Integer<T>>(label, batch * pixels);
  std::vector<int32_t> counts(batch * (kKinds + 1) * pixels);
  const auto counts_of = [&](int64_t b) { return counts.data() + b * (kKinds + 1) * pixels; };
  for_bands(table, batch, threads, [&](int64_t b, int64_t first, int64_t last) {
    count_pairs(Band<T>{table, edges.data() + b * pixels, labels.data() + b * pixels, counts_of(b),
                        first, last});
  });
  std::vector<Sums> images(batch);
#pragma omp parallel for num_threads(threads)
  for (int64_t b = 0; b < batch; ++b) {
    images[b] = sum_image(edge + b * pixels, counts_of(b), pixels);
  }
  Sums total;
  for (int kind = 0; kind < kKinds; ++kind) {
    for (const Sums& image : images) {
      total.counts[kind] += image.counts[kind];
      total.losses[kind] += image.losses[kind];
    }
    losses[kind] = static_cast<T>(total.losses[kind] / (total.counts[kind] + kEpsilon));
  }
  if (gradients == nullptr) return;
#pragma omp parallel for num_threads(threads)
  for (int64_t i = 0; i < kKinds * batch; ++i) {
    const int kind = static_cast<int>(i / batch);
    const int64_t b = i % batch;
    write_gradient(kind, total.counts[kind], edge + b * pixels, counts_of(b) + kind * pixels,
                   gradients + i * pixels, pixels);
  }
}

template void affinity_loss_cpu(const float*, const float*, float*, float*, int64_t, int64_t,
                                int64_t, double, int);
template void affinity_loss_cpu(const double*, const double*, double*, double*, int64_t, int64_t,
                                int64_t, double, int);

}  // namespace c2am
