// Affinity of pixel pairs (Ahn et al. 2019): a_ij = 1 - max of `edge` on the path from i to j.
#pragma once

#include <cstdint>

namespace c2am {

// edge (B, H, W), affinity (B, P, N): P displacements, N sources in row-major order. Of float or
// double.
template <typename T>
void path_affinity_cpu(const T* edge, T* affinity, int64_t batch, int64_t height, int64_t width,
                       double radius, int threads);

// grad (B, P, N), grad_edge (B, H, W): minus the sum of grad over the pairs that have their
// maximum at a pixel, among equal ones that nearest to the source. Sums are in double.
template <typename T>
void path_affinity_backward_cpu(const T* grad, const T* edge, T* grad_edge, int64_t batch,
                                int64_t height, int64_t width, double radius, int threads);

}  // namespace c2am
