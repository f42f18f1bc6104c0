// Exceptions that leave a parallel region: OpenMP ends the process for one that is thrown out of
// it.
#pragma once

#include <exception>
#include <mutex>

namespace c2am {

class Caught {
 public:
  // Calls body() and keeps what it throws. Thread-safe.
  template <typename Body>
  void run(const Body& body) {
    try {
      body();
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!first_) first_ = std::current_exception();
    }
  }

  // Throws the first of them, if any; after the region.
  void rethrow() const {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

}  // namespace c2am
