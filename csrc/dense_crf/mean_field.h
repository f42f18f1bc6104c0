// Mean-field inference in a fully connected CRF (Krahenbuhl & Koltun 2011, Alg. 1) with any
// Gaussian kernels k, normalisations a, b and symmetric compatibilities M of the C labels:
//
//   Q_i <- softmax(-U_i + m_i),  m_i = -sum over potentials of M a_i sum_j k_ij b_j Q_j.
//
// DenseCrf does the same for the two kernels of an image and Potts' compatibilities, faster.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "buffer.h"
#include "dense_crf/kernel.h"

namespace c2am {

// Where the sums s_i = sum_j k_ij divide a kernel: k_ij / s_j, k_ij / s_i, k_ij / sqrt(s_i s_j).
enum class Normalization { none, before, after, symmetric };

class MeanField {
 public:
  MeanField(int64_t points, int64_t classes) : points_(points), classes_(classes) {}

  // compat: (C, C), symmetric
  void add(std::unique_ptr<const Kernel> kernel, Normalization normalization, const float* compat,
           int threads);

  // Updates marginals: (C, N) `steps` times, from softmax(-U) or, if `started`, from what they are.
  // unary: (C, N). The result does not depend on `threads`.
  void update(const float* unary, float* marginals, int64_t steps, bool started, int threads) const;

  // out: (C, N) m of marginals: (C, N)
  void messages(const float* marginals, float* out, int threads) const;

 private:
  struct Potential {
    std::unique_ptr<const Kernel> kernel;
    Buffer<float> before, after;  // (N,) b, a
    std::vector<double> compat;   // (C, C)
  };
  struct State;
  State relative_state(const float* unary, int threads) const;
  void add_common(const float* started, State& s) const;
  void filter(State& s) const;
  void set_messages(const State& s, int64_t first, int64_t count, float* scratch, float* to) const;
  template <typename Body>
  void for_messages(const State& s, bool without, const Body& body) const;

  int64_t points_, classes_;
  std::vector<Potential> potentials_;
};

}  // namespace c2am
