// TransportCounters that one thread adds to while another reads them.
#pragma once
#include <mutex>

#include "comm/transport/endpoint.h"

namespace tessera {

class CounterBook {
 public:
  TransportCounters read() const {
    std::scoped_lock lock(mutex_);
    return counters_;
  }
  void add(std::uint64_t TransportCounters::*which, std::uint64_t amount) {
    std::scoped_lock lock(mutex_);
    counters_.*which += amount;
  }
  /// `reason` is a word of drop::all.
  void drop(const std::string& reason) {
    std::scoped_lock lock(mutex_);
    ++counters_.dropped[reason];
  }

 private:
  mutable std::mutex mutex_;
  TransportCounters counters_;
};

}  // namespace tessera
