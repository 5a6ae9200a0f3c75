// Time as the protocol sees it: monotonic nanoseconds behind an interface, so that simulations and tests own
// it.
#pragma once
#include <chrono>
#include <cstdint>

namespace tessera {

using Duration = std::chrono::nanoseconds;
using Instant = std::chrono::time_point<std::chrono::steady_clock, Duration>;

inline double seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}
inline Duration from_seconds(double s) {
  return Duration(static_cast<std::int64_t>(s * 1e9));
}

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant now() const = 0;
};

class SystemClock final : public Clock {
 public:
  Instant now() const override { return std::chrono::steady_clock::now(); }
};

/// A clock that stands still until a test or the simulator moves it.
class ManualClock final : public Clock {
 public:
  Instant now() const override { return now_; }
  void advance(Duration by) { now_ += by; }
  void set(Instant to) { now_ = to; }

 private:
  Instant now_{};
};

}  // namespace tessera
