// A slow link, imitated on a fast one: when a frame would have come out at the other end. Pure: asked with a
// time, answers with a time; the I/O thread holds the frames back until then (DelayLine).
#pragma once
#include <algorithm>
#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "base/clock.h"

namespace tessera {

struct LinkOptions {
  double bits_per_second = 0;  ///< each way; 0: as fast as the real one
  Duration latency{};          ///< one way
  bool slows() const { return bits_per_second > 0 || latency > Duration{}; }
};

/// One direction of a link: a token bucket of depth 0. A frame has passed when there was a token for each of
/// its bytes; tokens that nobody takes are lost. Control frames overtake bulk frames that wait, and take
/// their tokens, so that a heartbeat never waits behind gigabytes and the rate still holds.
class LinkThrottle {
 public:
  explicit LinkThrottle(const LinkOptions& options) : options_(options) {}
  Instant bulk(Instant now, std::size_t bytes) {
    free_ = std::max(free_, now) + time_of(bytes);
    return free_ + options_.latency;
  }
  Instant control(Instant now, std::size_t bytes) {
    control_free_ = std::max(control_free_, now) + time_of(bytes);
    free_ = std::max(free_, now) + time_of(bytes);
    return control_free_ + options_.latency;
  }

 private:
  Duration time_of(std::size_t bytes) const {
    return options_.bits_per_second > 0
               ? from_seconds(static_cast<double>(bytes) * 8 / options_.bits_per_second)
               : Duration{};
  }
  LinkOptions options_;
  Instant free_{}, control_free_{};  ///< when all tokens that were taken, or those for control, have come
};

/// Frames on their way, which come out in the order in which they went in.
template <class Frame>
class DelayLine {
 public:
  void push(Instant due, Frame frame) { frames_.emplace_back(due, std::move(frame)); }
  /// The next frame, if it is due.
  std::optional<Frame> pop(Instant now) {
    if (frames_.empty() || frames_.front().first > now) return std::nullopt;
    std::optional<Frame> frame = std::move(frames_.front().second);
    frames_.pop_front();
    return frame;
  }
  std::optional<Instant> next() const {
    return frames_.empty() ? std::nullopt : std::optional(frames_.front().first);
  }

 private:
  std::deque<std::pair<Instant, Frame>> frames_;
};

}  // namespace tessera
