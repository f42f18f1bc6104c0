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

  // The iterations of a loop that are given out one chunk after the other.
  bool begin(long first, long last, long by, long together, long* from, long* to) {
    {
      std::lock_guard<std::mutex> lock(mutex);
      if (!looping) next = first, end = last, step = by, chunk = together, looping = true;
    }
    return take(from, to);
  }

  bool take(long* from, long* to) {
    std::lock_guard<std::mutex> lock(mutex);
    *from = next;
    *to = next = std::min(next + chunk * step, end);
    return *from < *to;
  }

  const int size;
  bool looping = false;
  long next = 0, end = 0, step = 1, chunk = 1;
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

bool GOMP_loop_nonmonotonic_dynamic_start(long first, long last, long step, long chunk, long* from,
                                          long* to) {
  return team->begin(first, last, step, chunk, from, to);
}
bool GOMP_loop_nonmonotonic_dynamic_next(long* from, long* to) { return team->take(from, to); }
void GOMP_loop_end_nowait() {}  // the end of a team's only loop

// A region inside another one runs on one thread, as OpenMP does by default.
void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned) {
  Team now(team->size > 1 ? 1 : std::max(1, static_cast<int>(threads)));
  std::vector<std::thread> others;
  for (int n = 1; n < now.size; ++n) others.emplace_back(run, &now, n, body, data);
  run(&now, 0, body, data);
  for (std::thread& other : others) other.join();
}

}  // extern "C"
