#include <cuda_runtime.h>

#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "random_walk/random_walk.h"

namespace c2am {
namespace {

constexpr int kThreads = 256;

// What every kernel needs to know; passed by value.
struct Layout {
  int height, width, stride, reach;
  float radius_squared, beta;
  int64_t begin, size;
};

__device__ bool first_of_pair(const Layout& l, int dy, int dx) {
  return (dy > 0 || dx > 0) && dy * dy + dx * dx < l.radius_squared;
}

// Index in the padded grid of pixel `i` of the (H, W) map.
__device__ int64_t padded(const Layout& l, int64_t i) {
  return l.begin + i / l.width * l.stride + i % l.width;
}

// strength[i] = (1 - edge_i)^beta; walls keep their 0.
__global__ void link_strength_kernel(const float* edge,  // (H, W)
                                     float* strength,    // (size,)
                                     Layout l) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i >= int64_t{l.height} * l.width) return;
  strength[padded(l, i)] = powf(1.0f - edge[i], l.beta);
}

// Eq. 9: A[i, i+d] = min over the path from i to i+d of strength, one plane per displacement d.
__global__ void affinity_kernel(const float* strength,  // (size,)
                                float* planes,          // (P, size)
                                Layout l) {
  const int64_t pixel = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (pixel >= int64_t{l.height} * l.width) return;
  const int64_t i = padded(l, pixel);
  for (int dy = 0; dy <= l.reach; ++dy) {
    for (int dx = -l.reach; dx <= l.reach; ++dx) {
      if (!first_of_pair(l, dy, dx)) continue;
      float weakest = strength[i];
      for (int y = 0; y <= dy; ++y) {
        for (int x = min(0, dx); x <= max(0, dx); ++x) {
          const int cross = dy * x - dx * y;
          if (cross * cross >= dy * dy + dx * dx) continue;
          weakest = fminf(weakest, strength[i + int64_t{y} * l.stride + x]);
        }
      }
      planes[i] = weakest;
      planes += l.size;
    }
  }
}

// Eq. 10: inverse_degree[i] = 1 / D_i, with D_i = 1 + sum_j A[i, j].
__global__ void degree_kernel(const float* planes,    // (P, size)
                              float* inverse_degree,  // (size,)
                              Layout l) {
  const int64_t pixel = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (pixel >= int64_t{l.height} * l.width) return;
  const int64_t i = padded(l, pixel);
  float degree = 1.0f;
  for (int dy = 0; dy <= l.reach; ++dy) {
    for (int dx = -l.reach; dx <= l.reach; ++dx) {
      if (!first_of_pair(l, dy, dx)) continue;
      degree += planes[i] + planes[i - int64_t{dy} * l.stride - dx];
      planes += l.size;
    }
  }
  inverse_degree[i] = 1.0f / degree;
}

// current = cam (1 - edge), sum = first * current.
__global__ void start_kernel(const float* cam,   // (K, H, W)
                             const float* edge,  // (H, W)
                             float* current,     // (K, size)
                             float* sum,         // (K, size)
                             float first, Layout l) {
  const int64_t pixel = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  const int64_t pixels = int64_t{l.height} * l.width;
  if (pixel >= pixels) return;
  const int64_t at = blockIdx.y * l.size + padded(l, pixel);
  current[at] = cam[blockIdx.y * pixels + pixel] * (1.0f - edge[pixel]);
  sum[at] = first * current[at];
}

// Eq. 10: one step, (x T)_i = x_i + sum_j A_ij (x_j - x_i) / D_i, and one term of the recurrence:
// previous = scale current T - keep previous, sum += coefficient * previous.
__global__ void step_kernel(const float* planes,          // (P, size)
                            const float* inverse_degree,  // (size,)
                            const float* current,         // (K, size)
                            float* previous,              // (K, size)
                            float* sum,                   // (K, size)
                            float scale, float keep, float coefficient, Layout l) {
  const int64_t pixel = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (pixel >= int64_t{l.height} * l.width) return;
  const int64_t i = padded(l, pixel), map = blockIdx.y * l.size;
  const float* x = current + map + i;
  float flow = 0.0f;
  for (int dy = 0; dy <= l.reach; ++dy) {
    for (int dx = -l.reach; dx <= l.reach; ++dx) {
      if (!first_of_pair(l, dy, dx)) continue;
      const int64_t step = int64_t{dy} * l.stride + dx;
      flow += planes[i] * (x[step] - x[0]) + planes[i - step] * (x[-step] - x[0]);
      planes += l.size;
    }
  }
  const float next = scale * (x[0] + inverse_degree[i] * flow) - keep * previous[map + i];
  previous[map + i] = next;
  sum[map + i] += coefficient * next;
}

// out = result without its margin.
__global__ void finish_kernel(const float* result,  // (K, size)
                              float* out,           // (K, H, W)
                              Layout l) {
  const int64_t pixel = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  const int64_t pixels = int64_t{l.height} * l.width;
  if (pixel >= pixels) return;
  out[blockIdx.y * pixels + pixel] = result[blockIdx.y * l.size + padded(l, pixel)];
}

void check(cudaError_t status) {
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string("random_walk: CUDA: ") + cudaGetErrorString(status));
  }
}

}  // namespace

int64_t random_walk_cuda_scratch(int64_t maps, int64_t height, int64_t width, double radius) {
  const PaddedGrid grid(height, width, radius);
  const int64_t planes = static_cast<int64_t>(path_table(radius).size());
  return grid.size *
         (2 + planes + 3 * maps);  // strength, inverse_degree; planes; current, previous, sum
}

void random_walk_cuda(const float* cam, const float* edge, float* out, float* scratch, int64_t maps,
                      int64_t height, int64_t width, const RandomWalk& walk, void* stream_handle) {
  const auto stream = static_cast<cudaStream_t>(stream_handle);
  const PaddedGrid grid(height, width, walk.radius);
  const int64_t planes_size = static_cast<int64_t>(path_table(walk.radius).size()) * grid.size;
  const Layout l{static_cast<int>(height),
                 static_cast<int>(width),
                 static_cast<int>(grid.stride),
                 static_cast<int>(std::ceil(walk.radius)) - 1,
                 static_cast<float>(walk.radius * walk.radius),
                 static_cast<float>(walk.beta),
                 grid.begin,
                 grid.size};
  float* strength = scratch;
  float* inverse_degree = strength + grid.size;
  float* planes = inverse_degree + grid.size;
  float* current = planes + planes_size;
  float* previous = current + maps * grid.size;
  float* sum = previous + maps * grid.size;
  const int64_t floats = random_walk_cuda_scratch(maps, height, width, walk.radius);
  check(cudaMemsetAsync(scratch, 0, floats * sizeof(float), stream));

  const unsigned blocks = static_cast<unsigned>((height * width + kThreads - 1) / kThreads);
  const dim3 all(blocks, static_cast<unsigned>(maps));
  link_strength_kernel<<<blocks, kThreads, 0, stream>>>(edge, strength, l);
  affinity_kernel<<<blocks, kThreads, 0, stream>>>(strength, planes, l);
  degree_kernel<<<blocks, kThreads, 0, stream>>>(planes, inverse_degree, l);

  // Powers are the recurrence without its second term, of which only the last vector counts.
  const std::vector<double> c = walk.chebyshev ? chebyshev_coefficients(walk.steps, walk.tolerance)
                                               : std::vector<double>(walk.steps + 1, 0.0);
  start_kernel<<<all, kThreads, 0, stream>>>(cam, edge, current, sum, static_cast<float>(c[0]), l);
  for (size_t k = 1; k < c.size(); ++k) {
    const float keep = walk.chebyshev && k > 1 ? 1.0f : 0.0f;
    step_kernel<<<all, kThreads, 0, stream>>>(planes, inverse_degree, current, previous, sum,
                                              1 + keep, keep, static_cast<float>(c[k]), l);
    std::swap(current, previous);
  }
  finish_kernel<<<all, kThreads, 0, stream>>>(walk.chebyshev ? sum : current, out, l);
  check(cudaGetLastError());
}

}  // namespace c2am
