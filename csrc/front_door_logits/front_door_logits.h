// The front-door adjustment of the logits (paper, Eq. 3):
//
//   s_z = Pool over the pixels of (gamma * P(z|x) * GlobalCAM_z)
#pragma once

#include <cstdint>

namespace c2am {

enum class Pooling { mean, max, lse };

struct FrontDoor {
  Pooling pooling;
  double gamma;
  bool sigmoid;  // P(z|x) is the sigmoid of the logit, else the logit itself
};

// `logits` (B, Z) and `global_cam` (Z, pixels) -> `score` and `slope`, ds/dlogit, (B, Z) each.
// Returns whether all values of both arguments are finite.
template <typename T>
bool front_door_logits_cpu(const T* logits, const T* global_cam, T* score, T* slope, int64_t batch,
                           int64_t classes, int64_t pixels, const FrontDoor& front_door,
                           int threads);

}  // namespace c2am
