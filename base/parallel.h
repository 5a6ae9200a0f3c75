// A loop over several threads of its own, for passes over much memory whose parts do not depend on each
// other; and one thing that is done beside.
#pragma once
#include <pthread.h>
#include <sched.h>

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

/// Threads that help the one that makes them, until they go. They begin on other cores than its own, where
/// it goes on: on a virtual machine of two cores, one of them asleep, new threads were measured to wait next
/// to their maker for 2 to 3 ms.
class Helpers {
 public:
  /// Up to `count` threads that call work(), which must outlive them and not throw; fewer if the system has
  /// no more.
  template <class Work>
  Helpers(std::size_t count, const Work& work) {
    pthread_attr_t attributes;
    if (count == 0 || ::pthread_attr_init(&attributes) != 0) return;
    cpu_set_t cores;
    const int here = ::sched_getcpu();
    if (here >= 0 && ::pthread_getaffinity_np(::pthread_self(), sizeof cores, &cores) == 0) {
      CPU_CLR(here, &cores);
      // Said before they begin: one that has ended already would leave the caller itself on these cores.
      if (CPU_COUNT(&cores) > 0) ::pthread_attr_setaffinity_np(&attributes, sizeof cores, &cores);
    }
    const auto call = [](void* which) -> void* {
      (*static_cast<const Work*>(which))();
      return nullptr;
    };
    threads_.reserve(count);
    while (threads_.size() < count) {
      pthread_t thread;
      if (::pthread_create(&thread, &attributes, call, const_cast<Work*>(&work)) != 0) break;
      threads_.push_back(thread);
    }
    ::pthread_attr_destroy(&attributes);
  }
  ~Helpers() {
    for (const pthread_t thread : threads_) ::pthread_join(thread, nullptr);
  }
  Helpers(const Helpers&) = delete;
  Helpers& operator=(const Helpers&) = delete;

 private:
  std::vector<pthread_t> threads_;
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
  const Helpers helpers(wanted > 1 ? wanted - 1 : 0, work);
  work();
}

/// Calls work() on a thread of its own, which the future waits for when it goes.
template <class Work>
auto do_beside(Work work) {
  return std::async(std::launch::async, std::move(work));
}

}  // namespace tessera
