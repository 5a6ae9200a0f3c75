// The imitated slow link: in virtual time, and between two real endpoints.
#include "comm/transport/link_throttle.h"

#include <gmock/gmock.h>

#include <random>

#include "tests/comm/transport_fixtures.h"

namespace tessera {
namespace {

using std::chrono::milliseconds;

TEST(LinkThrottle, KeepsItsRateOverSecondsWhateverTheFrames) {
  std::mt19937 random(3);
  LinkThrottle link({.bits_per_second = 50e6, .latency = milliseconds(7)});
  Instant now{}, last{};
  double bytes = 0;
  while (seconds(now - Instant{}) < 20) {  // more than the link carries, so it is never idle
    const bool control = random() % 4 == 0;
    const std::size_t size = 1 + random() % (control ? 2000 : 2 << 20);
    const Instant out = control ? link.control(now, size) : link.bulk(now, size);
    EXPECT_GE(out, now + milliseconds(7));
    last = std::max(last, out);
    bytes += static_cast<double>(size);
    now += milliseconds(random() % 100);
  }
  EXPECT_GT(bytes * 8 / 50e6, 30) << "seconds";
  EXPECT_NEAR(seconds(last - Instant{}), 0.007 + bytes * 8 / 50e6, 0.1);
}

TEST(LinkThrottle, IsATokenBucketThatKeepsNoTokens) {
  LinkThrottle link({.bits_per_second = 8e6, .latency = milliseconds(10)});  // a byte a microsecond
  const Instant start{};
  EXPECT_EQ(link.bulk(start, 5000), start + milliseconds(15));
  EXPECT_EQ(link.bulk(start, 5000), start + milliseconds(20)) << "behind the first; latencies overlap";
  EXPECT_EQ(link.control(start + milliseconds(1), 1000), start + milliseconds(12)) << "overtakes";
  EXPECT_EQ(link.bulk(start + milliseconds(1), 1000), start + milliseconds(22)) << "but takes tokens";
  const Instant later = start + std::chrono::seconds(10);
  EXPECT_EQ(link.bulk(later, 5000), later + milliseconds(15)) << "no burst after a pause";
}

TEST(LinkThrottle, WithoutARateThereIsLatencyAlone) {
  LinkThrottle link({.latency = milliseconds(3)});
  EXPECT_EQ(link.bulk(Instant{}, 1 << 30), Instant{} + milliseconds(3));
  EXPECT_FALSE(LinkOptions{}.slows());
}

/// Seconds from `fetch` to the whole blob, and the longest silence of the other path while it travelled.
struct Took {
  double blob = 0, longest_silence = 0;
};
Took fetch(Endpoint& to, Endpoint& from, PeerId source, std::size_t size) {
  const Blob blob = test::random_blob(size, size);
  const BlobRef ref = from.offer(blob);
  EXPECT_TRUE(ref.path.empty()) << "shared memory has no slow link";
  const Instant start = std::chrono::steady_clock::now();
  Instant heard = start;
  to.fetch(source, ref);
  Took took;
  for (;;) {
    const auto arrival = to.receive(start + std::chrono::seconds(60));
    const Instant now = std::chrono::steady_clock::now();
    if (!arrival) {
      ADD_FAILURE() << "nothing came";
      return took;
    }
    if (std::holds_alternative<Received>(*arrival)) {
      took.longest_silence = std::max(took.longest_silence, seconds(now - heard));
      heard = now;
      continue;
    }
    EXPECT_TRUE(std::get<BlobArrived>(*arrival).blob.ok());
    took.blob = seconds(now - start);
    return took;
  }
}

TEST(LinkThrottle, SlowsBothDirectionsOfAnEndpointAndLetsHeartbeatsPass) {
  const test::TemporaryFolder folder;
  TransportOptions fast, slow;
  fast.shared_folder = slow.shared_folder = folder.path();
  slow.link = {.bits_per_second = 20e6, .latency = milliseconds(30)};
  const auto coordinator = test::coordinator_with(fast);
  WorkerEndpointOptions options;
  options.transport = slow;
  options.heartbeat_interval = milliseconds(100);
  const auto worker = test::worker_of(*coordinator, options);
  const Instant before = std::chrono::steady_clock::now();
  const PeerId peer = test::introduce(*worker, *coordinator);
  EXPECT_GE(std::chrono::steady_clock::now() - before, milliseconds(30));
  worker->send(coordinator_peer, Heartbeat{});  // the I/O thread goes on with it

  const std::size_t size = 5'000'000;  // 2 s at 20 Mbit/s
  const Took up = fetch(*coordinator, *worker, peer, size);
  EXPECT_NEAR(up.blob, 2.06, 0.05 * 2.06);  // request and bytes: a latency each
  EXPECT_LT(up.longest_silence, 1) << "2 s of chunks were queued";
}

TEST(LinkThrottle, SlowsTheWayDownToo) {
  TransportOptions slow;
  slow.link = {.bits_per_second = 20e6, .latency = milliseconds(30)};
  const auto coordinator = test::coordinator_with();
  WorkerEndpointOptions options;
  options.transport = slow;
  const auto worker = test::worker_of(*coordinator, options);
  test::introduce(*worker, *coordinator);
  const Took down = fetch(*worker, *coordinator, coordinator_peer, 5'000'000);
  EXPECT_NEAR(down.blob, 2.06, 0.05 * 2.06);
}

}  // namespace
}  // namespace tessera
