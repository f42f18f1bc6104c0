// A loop that threads share.
#pragma once

#include <omp.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "caught.h"

namespace c2am {

// Calls body(task, thread) for the tasks 0 .. tasks - 1 and a thread below `threads`. Each thread
// begins with tasks next to each other, which are the same in every loop of as many, so that it
// finds what it wrote in its own cache; when these are taken it helps the others.
template <typename Body>
void shared_loop(int64_t tasks, int threads, const Body& body) {
  std::vector<std::atomic<int64_t>> taken(threads);
  Caught caught;
#pragma omp parallel num_threads(threads)
  caught.run([&] {
    const int thread = omp_get_thread_num(), team = omp_get_num_threads();
    for (int i = 0; i < team; ++i) {
      const int of = (thread + i) % team;
      const int64_t begin = tasks * of / team, end = tasks * (of + 1) / team;
      while (true) {
        const int64_t task = begin + taken[of].fetch_add(1, std::memory_order_relaxed);
        if (task >= end) break;
        body(task, thread);
      }
    }
  });
  caught.rethrow();
}

}  // namespace c2am
