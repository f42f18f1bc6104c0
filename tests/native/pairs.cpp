#include "pairs.h"

#include "affinity_loss/affinity_loss.h"
#include "displacement_loss/displacement_loss.h"
#include "native.h"
#include "path_affinity/path_affinity.h"

namespace {

struct Maps {
  int64_t batch, height, width;
  double radius;
  int64_t pixels() const { return batch * height * width; }
};

const Maps kMaps[] = {{0, 9, 9, 3.0},  {1, 1, 1, 5.0},   {2, 4, 3, 2.0},
                      {1, 4, 30, 5.0}, {2, 37, 41, 3.5}, {1, 70, 33, 10.0}};

std::vector<float> labels(int64_t count) {
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(i / 3 % 4) - 1;
  return values;
}

}  // namespace

NATIVE_TEST(path_affinity) {
  for (const Maps& m : kMaps) {
    const c2am::PairTable table(m.height, m.width, m.radius);
    const int64_t pairs = m.batch * table.count() * table.rows * table.columns;
    const std::vector<float> edge = native::uniform(m.pixels(), 0, 1);
    const std::vector<float> grad = native::uniform(pairs, -1, 1, 1);
    native::same_for_all_threads("path_affinity", pairs, [&](int threads, float* out) {
      c2am::path_affinity_cpu(edge.data(), out, m.batch, m.height, m.width, m.radius, threads);
    });
    native::same_for_all_threads("backward", m.pixels(), [&](int threads, float* out) {
      c2am::path_affinity_backward_cpu(grad.data(), edge.data(), out, m.batch, m.height, m.width,
                                       m.radius, threads);
    });
  }
}

NATIVE_TEST(affinity_loss) {
  for (const Maps& m : kMaps) {
    const std::vector<float> edge = native::uniform(m.pixels(), 0, 1), label = labels(m.pixels());
    native::same_for_all_threads("affinity_loss", 3 + 3 * m.pixels(), [&](int threads, float* out) {
      c2am::affinity_loss_cpu(edge.data(), label.data(), out, out + 3, m.batch, m.height, m.width,
                              m.radius, threads);
    });
  }
}

NATIVE_TEST(displacement_loss) {
  for (const Maps& m : kMaps) {
    const std::vector<float> field = native::uniform(2 * m.pixels(), -3, 3);
    const std::vector<float> label = labels(m.pixels());
    const int64_t count = 2 + 4 * m.pixels();
    native::same_for_all_threads("displacement_loss", count, [&](int threads, float* out) {
      c2am::displacement_loss_cpu(field.data(), label.data(), out, out + 2, m.batch, m.height,
                                  m.width, m.radius, threads);
    });
  }
}
