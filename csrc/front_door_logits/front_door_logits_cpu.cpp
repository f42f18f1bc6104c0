#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "exponential.h"
#include "front_door_logits/front_door_logits.h"
#include "simd.h"

namespace c2am {
namespace {

template <typename T>
constexpr int kWidth = 32 / sizeof(T);  // lanes of an AVX2 register

// Of the Global CAM of a class.
template <typename T>
struct Summary {
  T sum, low, high;
  bool finite;
};

template <typename T>
C2AM_INLINE void summarize_body(const T* values, int64_t n, Summary<T>* summary) {
  constexpr int width = 4 * kWidth<T>;
  T sum[width] = {}, low[width], high[width];
  int infinite = 0;
  std::fill_n(low, width, std::numeric_limits<T>::max());
  std::fill_n(high, width, std::numeric_limits<T>::lowest());
  for (int64_t i = 0; i < n; i += width) {
    const int count = static_cast<int>(std::min<int64_t>(width, n - i));
    for (int lane = 0; lane < count; ++lane) {
      const T value = values[i + lane];
      sum[lane] += value;
      low[lane] = value < low[lane] ? value : low[lane];
      high[lane] = value > high[lane] ? value : high[lane];
      infinite |= !(std::abs(value) <= std::numeric_limits<T>::max());  // true of NaN too
    }
  }
  T total = 0;
  for (int lane = 0; lane < width; ++lane) total += sum[lane];
  *summary = {total, *std::min_element(low, low + width), *std::max_element(high, high + width),
              infinite == 0};
}

// With e = exp(x_i - m) of x = scale g: the sums of e - 1 (which keeps the digits of small x), of
// e, and of e g.
template <typename T>
struct Exponentials {
  T minus_one, sum, weighted;
};

template <int Width, typename T>
C2AM_INLINE void add_exponentials(const T* values, int64_t first, int64_t last, T scale, T m,
                                  Exponentials<T>* result) {
  using V = Vector<Width, T>;
  V minus_one = {}, sum = {}, weighted = {}, value, below, all;
  for (int64_t i = first; i + Width <= last; i += Width) {
    load(value, values + i);
    exponential<T>(scale * value - m, below, all);
    minus_one += below;
    sum += all;
    weighted += all * value;
  }
  for (int lane = 0; lane < Width; ++lane) {
    result->minus_one += minus_one[lane];
    result->sum += sum[lane];
    result->weighted += weighted[lane];
  }
}

template <typename T>
C2AM_INLINE void exponentials_body(const T* values, int64_t n, T scale, T m,
                                   Exponentials<T>* result) {
  const int64_t whole = n - n % kWidth<T>;
  *result = {};
  add_exponentials<kWidth<T>>(values, 0, whole, scale, m, result);
  add_exponentials<1>(values, whole, n, scale, m, result);
}

#define C2AM_FRONT_DOOR(T)                                                                         \
  C2AM_DISPATCH(summarize, (const T* values, int64_t n, Summary<T>* summary),                      \
                (values, n, summary))                                                              \
  C2AM_DISPATCH(exponentials, (const T* values, int64_t n, T scale, T m, Exponentials<T>* result), \
                (values, n, scale, m, result))
C2AM_FRONT_DOOR(float)
C2AM_FRONT_DOOR(double)
#undef C2AM_FRONT_DOOR

template <typename T>
struct Pooled {
  T score, slope;  // s and ds/dp
};

// log(mean(exp(x_i))) of x = p gamma g, with the maximum m of x taken out; its slope is the mean of
// gamma g weighted by softmax(x).
template <typename T>
Pooled<T> log_mean_exp(T p, T gamma, const T* values, int64_t n, const Summary<T>& of) {
  const T scale = p * gamma, m = scale * (scale >= 0 ? of.high : of.low);
  Exponentials<T> e;
  exponentials(values, n, scale, m, &e);
  const T mean = e.minus_one / static_cast<T>(n);
  const T log_mean = mean > T{-0.5} ? std::log1p(mean) : std::log(e.sum / static_cast<T>(n));
  return {m + log_mean, gamma * (e.weighted / e.sum)};
}

// Eq. 3, for one image and class.
template <typename T>
Pooled<T> pool(T p, Pooling pooling, T gamma, const T* values, int64_t n, const Summary<T>& of) {
  if (pooling == Pooling::lse) return log_mean_exp(p, gamma, values, n, of);
  const T mean = of.sum / static_cast<T>(n), extreme = p >= 0 ? of.high : of.low;
  const T slope = gamma * (pooling == Pooling::mean ? mean : extreme);
  return {p * slope, slope};
}

}  // namespace

template <typename T>
bool front_door_logits_cpu(const T* logits, const T* global_cam, T* score, T* slope, int64_t batch,
                           int64_t classes, int64_t pixels, const FrontDoor& front_door,
                           int threads) {
  const int team = static_cast<int>(std::min<int64_t>(threads, classes));
  const T gamma = static_cast<T>(front_door.gamma);
  bool finite = true;
#pragma omp parallel for num_threads(team) schedule(static, 1) reduction(&& : finite)
  for (int64_t z = 0; z < classes; ++z) {
    const T* values = global_cam + z * pixels;
    Summary<T> summary;
    summarize(values, pixels, &summary);
    finite = finite && summary.finite;
    for (int64_t b = 0; b < batch; ++b) {
      const T logit = logits[b * classes + z];
      finite = finite && std::isfinite(logit);
      const T p = front_door.sigmoid ? 1 / (1 + std::exp(-logit)) : logit;
      const Pooled<T> pooled = pool(p, front_door.pooling, gamma, values, pixels, summary);
      score[b * classes + z] = pooled.score;
      slope[b * classes + z] = front_door.sigmoid ? pooled.slope * p * (1 - p) : pooled.slope;
    }
  }
  return finite;
}

template bool front_door_logits_cpu(const float*, const float*, float*, float*, int64_t, int64_t,
                                    int64_t, const FrontDoor&, int);
template bool front_door_logits_cpu(const double*, const double*, double*, double*, int64_t,
                                    int64_t, int64_t, const FrontDoor&, int);

}  // namespace c2am
