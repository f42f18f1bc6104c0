// Cross-entropies of the affinities of pixel pairs (Ahn et al. 2019). With m the largest edge on
// the path of a pair and e = 1e-5, sum / (count + e) of
//
//   fg_positive  -log(1 - m + e)  over the pairs of one foreground class
//   bg_positive  -log(1 - m + e)  over the pairs of background
//   negative     -log(m + e)      over the pairs of two classes
//
// m is the edge at one pixel of the path, the arg-max. So the sums need no more than the number of
// pairs of each kind that have their arg-max at each pixel: integers, that threads add exactly.
#pragma once

#include <cstdint>

namespace c2am {

// edge (B, H, W) in [0, 1]; label (B, H, W), -1 for void; losses (3,); gradients (3, B, H, W) of
// each loss by the edge, or null. Of float or double; sums are in double.
template <typename T>
void affinity_loss_cpu(const T* edge, const T* label, T* losses, T* gradients, int64_t batch,
                       int64_t height, int64_t width, double radius, int threads);

}  // namespace c2am
