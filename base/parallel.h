// A loop over several threads of its own, for passes over much memory whose parts do not depend on each
// other; and one thing that is done beside.
#pragma once
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <future>
#include <thread>
#include <utility>
#include <vector>

namespace tessera {

/// How many threads this machine runs at a time; at least 1.
inline int hardware_threads() {
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

/// The cores that the calling thread may use but is not on.
class OtherCores {
 public:
  OtherCores() {
#if defined(__linux__)
    const int here = ::sched_getcpu();
    if (here < 0 || ::pthread_getaffinity_np(::pthread_self(), sizeof cores_, &cores_) != 0) return;
    CPU_CLR(here, &cores_);
    any_ = CPU_COUNT(&cores_) > 0;
#endif
  }
  /// A new thread begins next to its maker, who goes on: on a virtual machine, where a core that sleeps does
  /// not count as idle, it was measured to wait there for 2 to 3 ms.
  void take(std::jthread& thread) const {
#if defined(__linux__)
    if (any_) ::pthread_setaffinity_np(thread.native_handle(), sizeof cores_, &cores_);
#endif
  }

 private:
#if defined(__linux__)
  cpu_set_t cores_;
#endif
  bool any_ = false;
};

/// Calls part(i) once for each i in [0, parts), from `threads` threads at most (the caller is one of them;
/// new ones take over its floating-point settings); returns when all have returned. A part must not throw,
/// and what it computes must not depend on who runs it.
template <class Part>
void parallel_for(std::size_t parts, int threads, const Part& part) {
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < parts; i = next++) part(i);
  };
  const std::size_t wanted = std::min<std::size_t>(parts, static_cast<std::size_t>(std::max(threads, 1)));
  std::vector<std::jthread> others;
  if (wanted > 1) {
    const OtherCores cores;
    for (std::size_t i = 1; i < wanted; ++i) cores.take(others.emplace_back(work));
  }
  work();
}

/// Calls work() on a thread of its own, which the future waits for when it goes.
template <class Work>
auto do_beside(Work work) {
  return std::async(std::launch::async, std::move(work));
}

}  // namespace tessera
