// Pairs of endpoints and small helpers for the tests of transports.
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "base/random.h"
#include "comm/transport/inproc_endpoint.h"
#include "comm/transport/zmq_endpoint.h"

namespace tessera::test {

/// A folder for shared memory, gone at the end of the test.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& parent = "/dev/shm")
      : path_(parent + "/tessera-test-" + random_bits128().hex()) {}
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::unique_ptr<ZmqEndpoint> coordinator_with(const TransportOptions& transport = {}) {
  CoordinatorEndpointOptions options;
  options.transport = transport;
  auto made = make_coordinator_endpoint(options);
  EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error().message);
  return std::move(made).value();
}
inline std::unique_ptr<ZmqEndpoint> worker_of(const ZmqEndpoint& coordinator,
                                              WorkerEndpointOptions options = {}) {
  options.control = coordinator.control_address();
  options.bulk = coordinator.bulk_address();
  auto made = make_worker_endpoint(options);
  EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error().message);
  return std::move(made).value();
}

struct Pair {
  std::shared_ptr<TemporaryFolder> folder;
  std::unique_ptr<Endpoint> coordinator, worker;
};
/// "inproc", "sockets" (no shared memory) or "shared" (with it).
inline Pair make_pair(const std::string& kind) {
  if (kind == "inproc") {
    InprocHub hub;
    Pair pair{nullptr, hub.make_coordinator(), nullptr};
    pair.worker = hub.make_worker();
    return pair;
  }
  Pair pair;
  TransportOptions transport;
  if (kind == "shared") {
    pair.folder = std::make_shared<TemporaryFolder>();
    transport.shared_folder = pair.folder->path();
  }
  auto coordinator = coordinator_with(transport);
  WorkerEndpointOptions options;
  options.transport = transport;
  pair.worker = worker_of(*coordinator, options);
  pair.coordinator = std::move(coordinator);
  return pair;
}

inline Instant in(Duration duration) {
  return std::chrono::steady_clock::now() + duration;
}

/// The next arrival, which must be a T.
template <class T>
std::optional<T> next(Endpoint& endpoint, Duration patience = std::chrono::seconds(20)) {
  std::optional<Arrival> arrival = endpoint.receive(in(patience));
  if (!arrival || !std::holds_alternative<T>(*arrival)) return std::nullopt;
  return std::get<T>(*std::move(arrival));
}

/// Whether something becomes true within a few seconds.
template <class Condition>
bool soon(const Condition& condition, Duration patience = std::chrono::seconds(10)) {
  const Instant deadline = in(patience);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

/// The worker says something; returns the name under which the coordinator knows it.
inline PeerId introduce(Endpoint& worker, Endpoint& coordinator) {
  worker.send(coordinator_peer, Leave{"just to be known"});
  const auto heard = next<Received>(coordinator);
  EXPECT_TRUE(heard.has_value());
  return heard ? heard->from : PeerId{};
}

inline Blob random_blob(std::size_t size, std::uint64_t seed = 1) {
  Buffer buffer = Buffer::allocate(size);
  KeyedRandom random(key_of({seed, size}));
  for (std::size_t i = 0; i < size; i += 8) {
    const std::uint64_t word = random();
    std::copy_n(reinterpret_cast<const std::byte*>(&word), std::min<std::size_t>(8, size - i),
                &buffer.bytes[i]);
  }
  return Blob(buffer);
}

inline void expect_fetched(Endpoint& receiver, PeerId from, const BlobRef& ref, const Blob& blob) {
  receiver.fetch(from, ref);
  const auto arrived = next<BlobArrived>(receiver);
  ASSERT_TRUE(arrived);
  ASSERT_TRUE(arrived->blob.ok()) << arrived->blob.error().message;
  EXPECT_EQ(arrived->from, from);
  EXPECT_EQ(arrived->blob->digest, blob.digest);
  EXPECT_TRUE(std::ranges::equal(arrived->blob->bytes(), blob.bytes()));
}

}  // namespace tessera::test
