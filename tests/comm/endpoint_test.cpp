// What every transport must do, over all of them.
#include "comm/transport/endpoint.h"

#include <gmock/gmock.h>

#include <fstream>

#include "comm/drop_reasons.h"
#include "tests/comm/transport_fixtures.h"

namespace tessera {
namespace {

using namespace test;

class AnyTransport : public testing::TestWithParam<std::string> {
 protected:
  Pair pair_ = make_pair(GetParam());
  Endpoint& coordinator() { return *pair_.coordinator; }
  Endpoint& worker() { return *pair_.worker; }
};
INSTANTIATE_TEST_SUITE_P(Kinds, AnyTransport, testing::Values("inproc", "sockets", "shared"),
                         [](const auto& kind) { return kind.param; });

TEST_P(AnyTransport, CarriesMessagesBothWaysInOrder) {
  worker().identify({1, 2}, {3}, {4, 5});
  for (int i = 0; i < 100; ++i) worker().send(coordinator_peer, Heartbeat{std::uint64_t(i), {}, {}});
  PeerId from;
  for (int i = 0; i < 100; ++i) {
    const auto heard = next<Received>(coordinator());
    ASSERT_TRUE(heard);
    EXPECT_EQ(std::get<Heartbeat>(heard->message).steps, std::uint64_t(i));
    EXPECT_EQ(heard->header, (Header{{1, 2}, {3}, {4, 5}, std::uint64_t(i + 1)}));
    EXPECT_FALSE(heard->from.is_zero());
    from = heard->from;
  }
  coordinator().send(from, HeartbeatAck{true});
  const auto heard = next<Received>(worker());
  ASSERT_TRUE(heard);
  EXPECT_EQ(heard->from, coordinator_peer);
  EXPECT_EQ(heard->message, Message(HeartbeatAck{true}));
  EXPECT_GT(worker().counters().control_bytes_out, 0u);
  EXPECT_EQ(worker().counters().control_bytes_out, coordinator().counters().control_bytes_in);
}

TEST_P(AnyTransport, ReceiveReturnsNothingWhenTheDeadlinePasses) {
  EXPECT_FALSE(coordinator().receive(std::chrono::steady_clock::now() + std::chrono::milliseconds(5)));
}

TEST_P(AnyTransport, FetchesBlobsOfAllSizesInBothDirections) {
  const PeerId peer = introduce(worker(), coordinator());
  for (std::size_t size : {0u, 1u, 1u << 20, (5u << 20) + 3}) {
    SCOPED_TRACE(size);
    const Blob blob = random_blob(size);
    expect_fetched(coordinator(), peer, worker().offer(blob), blob);
    expect_fetched(worker(), coordinator_peer, coordinator().offer(blob), blob);
    worker().withdraw(blob.digest);
    coordinator().withdraw(blob.digest);
  }
}

TEST_P(AnyTransport, FetchOfAWithdrawnBlobEndsInAnError) {
  const PeerId peer = introduce(worker(), coordinator());
  const BlobRef ref = worker().offer(random_blob(1000));
  worker().withdraw(ref.digest);
  coordinator().fetch(peer, ref);
  const auto arrived = next<BlobArrived>(coordinator());
  ASSERT_TRUE(arrived);
  EXPECT_EQ(arrived->ref, ref);
  ASSERT_FALSE(arrived->blob.ok());
  EXPECT_THAT(arrived->blob.error().message, testing::HasSubstr(ref.digest.hex()));
}

TEST_P(AnyTransport, ABlobThatWasOfferedTwiceStaysUntilBothAreWithdrawn) {
  const PeerId peer = introduce(worker(), coordinator());
  const Blob blob = random_blob(1000);
  const BlobRef ref = worker().offer(blob);
  worker().offer(blob);
  worker().withdraw(ref.digest);
  expect_fetched(coordinator(), peer, ref, blob);
  worker().withdraw(ref.digest);
  coordinator().fetch(peer, ref);
  const auto arrived = next<BlobArrived>(coordinator());
  ASSERT_TRUE(arrived);
  EXPECT_FALSE(arrived->blob.ok());
}

TEST_P(AnyTransport, ASecondFetchOfTheSameBlobJoinsTheFirst) {
  const PeerId peer = introduce(worker(), coordinator());
  const Blob blob = random_blob(3 << 20);
  const BlobRef ref = worker().offer(blob);
  coordinator().fetch(peer, ref);
  coordinator().fetch(peer, ref);
  ASSERT_TRUE(next<BlobArrived>(coordinator()));
  EXPECT_FALSE(coordinator().receive(std::chrono::steady_clock::now() + std::chrono::milliseconds(50)));
  expect_fetched(coordinator(), peer, ref, blob);  // after its end a fetch starts anew
}

/// Of two that were asked, the one that still has its bytes.
TEST(SharedMemory, ABlobWhoseFileWasChangedIsHadFromThePeersThemselves) {
  Pair pair = make_pair("shared");
  WorkerEndpointOptions options;
  options.transport.shared_folder = pair.folder->path();
  const auto other = worker_of(dynamic_cast<ZmqEndpoint&>(*pair.coordinator), options);
  const PeerId first = introduce(*pair.worker, *pair.coordinator);
  const PeerId second = introduce(*other, *pair.coordinator);
  const Blob blob = random_blob(3'000'000);
  pair.worker->offer(blob);
  const BlobRef ref = other->offer(blob);
  pair.coordinator->fetch(first, ref);
  pair.coordinator->fetch(second, ref);
  std::fstream(ref.path, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(1'500'000)
      .put(static_cast<char>(~static_cast<int>(blob.bytes()[1'500'000])));
  pair.worker->withdraw(ref.digest);
  const auto arrived = next<BlobArrived>(*pair.coordinator);
  ASSERT_TRUE(arrived && arrived->blob.ok());
  EXPECT_TRUE(std::ranges::equal(arrived->blob->bytes(), blob.bytes()));
  EXPECT_FALSE(next<BlobArrived>(*pair.coordinator, std::chrono::milliseconds(50)));
  const TransportCounters counters = pair.coordinator->counters();
  EXPECT_EQ(counters.dropped.at(drop::digest), 1u);
  EXPECT_EQ(counters.shared_bytes_in, 0u);
  EXPECT_GE(counters.bulk_bytes_in, blob.bytes().size());
}

TEST_P(AnyTransport, MessagesToNobodyAreCounted) {
  coordinator().send({7, 7}, Stop{"who is there", 0});
  EXPECT_TRUE(soon([&] { return coordinator().counters().dropped[drop::no_route] == 1; }));
}

TEST_P(AnyTransport, BlobsTakeTheWayThatIsCheapest) {
  const PeerId peer = introduce(worker(), coordinator());
  const Blob blob = random_blob(2 << 20);
  expect_fetched(coordinator(), peer, worker().offer(blob), blob);
  const TransportCounters counters = coordinator().counters();
  EXPECT_EQ(counters.shared_bytes_in, GetParam() == "sockets" ? 0u : 2u << 20);
  EXPECT_EQ(counters.bulk_bytes_in, GetParam() == "sockets" ? 2u << 20 : 0u);
}

}  // namespace
}  // namespace tessera
