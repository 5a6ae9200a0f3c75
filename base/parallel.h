// A loop over several threads of its own, for passes over much memory whose parts do not depend on each
// other; and one thing that is done beside.
#pragma once
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
  for (std::size_t i = 1; i < wanted; ++i) others.emplace_back(work);
  work();
}

/// Calls work() on a thread of its own, which the future waits for when it goes.
template <class Work>
auto do_beside(Work work) {
  return std::async(std::launch::async, std::move(work));
}

}  // namespace tessera
