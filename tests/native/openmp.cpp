// The part of GCC's OpenMP runtime that the core uses, on plain threads. ThreadSanitizer does not
// see the locks inside libgomp and reports races that are none; these it sees. The build with
// ThreadSanitizer links this in the place of libgomp; a missing function is an error of the linker.
#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace {

struct Team {
  explicit Team(int size) : size(size) {}

  void barrier() {
    std::unique_lock<std::mutex> lock(mutex);
    const int round = rounds;
    if (++waiting == size) {
      waiting = 0;
      ++rounds;
      all_here.notify_all();
    } else {
      all_here.wait(lock, [&] { return rounds != round; });
    }
  }

  const int size;
  int waiting = 0, rounds = 0;
  std::mutex mutex;
  std::condition_variable all_here;
};

Team alone(1);
thread_local Team* team = &alone;
thread_local int thread_number = 0;

void run(Team* of, int number, void (*body)(void*), void* data) {
  Team* const outer = team;
  const int outer_number = thread_number;
  team = of;
  thread_number = number;
  body(data);
  team = outer;
  thread_number = outer_number;
}

}  // namespace

extern "C" {

int omp_get_thread_num() { return thread_number; }
int omp_get_num_threads() { return team->size; }
void GOMP_barrier() { team->barrier(); }

// A region inside another one runs on one thread, as OpenMP does by default.
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned) {
  Team now(team->size > 1 ? 1 : std::max(1, static_cast<int>(threads)));
  std::vector<std::thread> others;
  for (int n = 1; n < now.size; ++n) others.emplace_back(run, &now, n, body, data);
  run(&now, 0, body, data);
  for (std::thread& other : others) other.join();
}

}  // extern "C"
