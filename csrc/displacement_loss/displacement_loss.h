// Losses of a displacement field d (Ahn et al. 2019). With o_ij = x_j - x_i and e = 1e-5,
// sum / (2 count + e), over pairs and the two components, of
//
//   fg_positive  |d_i - d_j - o_ij|  over the pairs of one foreground class
//   bg_positive  |d_i - d_j|         over the pairs of background
#pragma once

#include <cstdint>

namespace c2am {

// field (B, 2, H, W); label (B, H, W), -1 for void; losses (2,); gradients (2, B, 2, H, W) of each
// loss by the field, or null. Of float or double.
template <typename T>
void displacement_loss_cpu(const T* field, const T* label, T* losses, T* gradients, int64_t batch,
                           int64_t height, int64_t width, double radius, int threads);

}  // namespace c2am
