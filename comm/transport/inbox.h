// Arrivals on their way from an endpoint's I/O thread to its owner.
#pragma once
#include <condition_variable>
#include <deque>
#include <mutex>

#include "comm/transport/endpoint.h"

namespace tessera {

class Inbox {
 public:
  void push(Arrival arrival) {
    {
      std::scoped_lock lock(mutex_);
      arrivals_.push_back(std::move(arrival));
    }
    arrived_.notify_one();
  }
  /// The oldest, waiting for one until the deadline.
  std::optional<Arrival> pop(Instant deadline) {
    std::unique_lock lock(mutex_);
    if (!arrived_.wait_until(lock, deadline, [this] { return !arrivals_.empty(); })) return std::nullopt;
    Arrival arrival = std::move(arrivals_.front());
    arrivals_.pop_front();
    return arrival;
  }
  std::size_t size() const {
    std::scoped_lock lock(mutex_);
    return arrivals_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Arrival> arrivals_;
};

}  // namespace tessera
