#include "shared_loop.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "native.h"

NATIVE_TEST(shared_loop) {
  for (const int threads : {1, 2, 3, 8}) {
    for (const int64_t tasks : {0, 1, 2, 7, 1000}) {
      const std::string what = std::to_string(tasks) + " on " + std::to_string(threads);
      std::vector<std::atomic<int>> done(tasks), by(threads);
      c2am::shared_loop(tasks, threads, [&](int64_t task, int thread) {
        ++done[task];
        ++by.at(thread);
      });
      for (const auto& times : done) native::check(times == 1, "each task once: " + what);
    }
  }

  std::atomic<bool> helped{false};
  c2am::shared_loop(10, 2, [&](int64_t task, int) {
    if (task == 4) helped = true;  // of the thread that is busy with the first one
    while (task == 0 && omp_get_num_threads() == 2 && !helped) std::this_thread::yield();
  });
  native::check(helped, "one helps the other");

  std::atomic<int> done{0};
#pragma omp parallel num_threads(2)
  c2am::shared_loop(7, 2, [&](int64_t, int) { ++done; });
  native::check(done == 14, "within a parallel region");
}
