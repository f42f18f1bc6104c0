#include "displacement_loss/displacement_loss.h"
#include "pairs.h"

namespace c2am {
namespace {

constexpr double kEpsilon = 1e-5;
constexpr int kKinds = 2;  // fg_positive, bg_positive

// The maps of one image, with a margin before and behind for the neighbours of every pixel.
template <typename T>
struct Image {
  Image(const T* field, const T* label, const PairTable& table)
      : before(table.margin * (table.width + 1)) {
    const int64_t pixels = table.height * table.width;
    const int64_t size = pixels + 2 * before + 64 / static_cast<int64_t>(sizeof(T));
    labels.assign(size, -1);
    sources.assign(size, -2);
    for (int c = 0; c < 2; ++c) {
      fields[c].assign(size, 0);
      std::copy_n(field + c * pixels, pixels, fields[c].begin() + before);
    }
    std::copy_n(label, pixels, labels.begin() + before);
    for (int64_t y = 0; y < table.rows; ++y) {
      const int64_t at = table.source(y, 0);
      const auto at_source = sources.begin() + before + at;
      std::replace_copy(label + at, label + at + table.columns, at_source, T{-1}, T{-2});
    }
  }
  int64_t before;
  std::vector<T> fields[2];
  std::vector<T> labels;   // -1: void or margin
  std::vector<T> sources;  // labels of sources, -2: void or no source, so that no pair is equal
};

template <typename T>
struct Row {
  const PairTable& table;
  const Image<T>& image;
  int64_t y;
  T* gradients;  // null, or for a loss and a component (H, W) of the image:
  int64_t kind_stride, component_stride;
  double *sums, *counts;  // (2,): added to
};

// The pairs from (Sign 1) or to (Sign -1) the pixels at `at`. Adds |error| to `sum`, its slope by
// these pixels to `slope`, the number of pairs to `count`.
template <int Sign, typename T, typename V>
C2AM_INLINE void visit_pairs(const Row<T>& row, int64_t at, V& sum, V (&slope)[2], V& count) {
  const Image<T>& image = row.image;
  const T* here_label = (Sign > 0 ? image.sources : image.labels).data() + at;
  const T* there_label = (Sign > 0 ? image.labels : image.sources).data() + at;
  V label, other, here[2], there;
  load(label, here_label);
  for (int c = 0; c < 2; ++c) load(here[c], image.fields[c].data() + at);
  const V foreground = label > 0 ? V{} + 1 : V{};
  for (int p = 0; p < row.table.count(); ++p) {
    const int64_t step = Sign * row.table.step(p);
    load(other, there_label + step);
    const V pair = label == other ? V{} + 1 : V{};
    count += pair;
    for (int c = 0; c < 2; ++c) {
      load(there, image.fields[c].data() + at + step);
      const T offset = static_cast<T>(c == 0 ? row.table.ends[p].dy : row.table.ends[p].dx);
      const V error = pair * (Sign * (here[c] - there) - foreground * offset);
      sum += error < 0 ? -error : error;
      slope[c] += error > 0 ? V{} + Sign : V{};
      slope[c] -= error < 0 ? V{} + Sign : V{};
    }
  }
}

// One row of pixels: the losses of the pairs from them, and the gradients by them of all pairs.
template <int Bytes, typename T>
C2AM_INLINE void visit_row_body(const Row<T>& row) {
  constexpr int kLanes = Bytes / sizeof(T);
  using V = Vector<kLanes, T>;
  for (int64_t x = 0; x < row.table.width; x += kLanes) {
    const int64_t pixel = row.y * row.table.width + x, at = row.image.before + pixel;
    const int64_t lanes = std::min<int64_t>(kLanes, row.table.width - x);
    V sum = {}, count = {}, slope[2] = {}, unused = {};
    visit_pairs<1>(row, at, sum, slope, count);
    if (row.gradients) visit_pairs<-1>(row, at, unused, slope, unused);
    for (int64_t i = 0; i < lanes; ++i) {
      const int kind = row.image.labels[at + i] > 0 ? 0 : 1;
      row.sums[kind] += sum[i];
      row.counts[kind] += 2 * static_cast<double>(count[i]);
      if (!row.gradients) continue;
      for (int c = 0; c < 2; ++c) {
        T* gradient = row.gradients + c * row.component_stride + pixel + i;
        gradient[kind * row.kind_stride] = slope[c][i];
        gradient[(1 - kind) * row.kind_stride] = 0;
      }
    }
  }
}
C2AM_DISPATCH_BYTES(visit_row, (const Row<float>& row), (row))
C2AM_DISPATCH_BYTES(visit_row, (const Row<double>& row), (row))

}  // namespace

template <typename T>
void displacement_loss_cpu(const T* field, const T* label, T* losses, T* gradients, int64_t batch,
                           int64_t height, int64_t width, double radius, int threads) {
  const PairTable table(height, width, radius);
  const int64_t pixels = height * width, size = batch * 2 * pixels;
  std::vector<double> sums(kKinds * batch * height), counts(kKinds * batch * height);
  for (int64_t b = 0; b < batch; ++b) {
    const Image<T> image(field + b * 2 * pixels, label + b * pixels, table);
#pragma omp parallel for num_threads(threads)
    for (int64_t y = 0; y < height; ++y) {
      const int64_t i = kKinds * (b * height + y);
      visit_row(Row<T>{table, image, y, gradients ? gradients + b * 2 * pixels : nullptr, size,
                       pixels, &sums[i], &counts[i]});
    }
  }
  for (int kind = 0; kind < kKinds; ++kind) {
    double sum = 0, count = kEpsilon;
    for (size_t i = kind; i < sums.size(); i += kKinds) {
      sum += sums[i];
      count += counts[i];
    }
    losses[kind] = static_cast<T>(sum / count);
    if (gradients == nullptr) continue;
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < size; ++i) {
      T& gradient = gradients[kind * size + i];
      gradient = static_cast<T>(gradient / count);
    }
  }
}

template void displacement_loss_cpu(const float*, const float*, float*, float*, int64_t, int64_t,
                                    int64_t, double, int);
template void displacement_loss_cpu(const double*, const double*, double*, double*, int64_t,
                                    int64_t, int64_t, double, int);

}  // namespace c2am
