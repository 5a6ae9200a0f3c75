// The bulk path without sockets, in virtual time: credit, repetition, damage, limits.
#include <gmock/gmock.h>

#include <deque>

#include "comm/drop_reasons.h"
#include "comm/transport/bulk_fetch.h"
#include "comm/transport/bulk_offers.h"
#include "tests/comm/transport_fixtures.h"

namespace tessera {
namespace {

using namespace std::chrono_literals;
using test::random_blob;
using testing::HasSubstr;

const PeerId alice{1, 1}, bob{1, 2};

// A fetcher, and peers that answer a step later unless a test interferes.
class Link {
 public:
  explicit Link(BulkOptions options = {}) : fetcher(options, counters) {}

  /// Lets the fetcher work, then answers everything it asked for.
  void turn(Duration takes = 10ms) {
    fetcher.work(now, [this](PeerId to, const ChunkRequest& request) {
      if (!reachable) return false;
      requests.emplace_back(to, request);
      ++asked;
      return true;
    });
    now += takes;
    most_out = std::max(most_out, requests.size());
    while (!requests.empty() && answering) {
      const auto [to, request] = requests.front();
      requests.pop_front();
      auto [header, bytes] = offers[to].answer(request);
      Buffer payload = Buffer::copy_of(bytes.bytes);
      if (!interfere || interfere(header, payload)) fetcher.accept(to, header, payload.bytes, now);
    }
    for (BlobArrived& arrival : fetcher.take_done()) arrivals.push_back(std::move(arrival));
  }
  /// Turns until a fetch ends; how long that took.
  Duration run(Duration a_turn = 10ms, int most_turns = 100'000) {
    const Instant start = now;
    for (int i = 0; i < most_turns && arrivals.empty(); ++i) turn(a_turn);
    return now - start;
  }
  std::uint64_t dropped(const char* reason) { return counters.read().dropped[reason]; }

  CounterBook counters;
  BulkFetcher fetcher;
  std::map<PeerId, BulkOffers> offers;
  std::deque<std::pair<PeerId, ChunkRequest>> requests;
  std::vector<BlobArrived> arrivals;
  std::function<bool(ChunkHeader&, Buffer&)> interfere;  ///< false: the chunk is lost
  bool reachable = true, answering = true;
  std::size_t most_out = 0, asked = 0;
  Instant now{1h};
};

BlobRef ref_to(const Blob& blob) {
  return {blob.digest, blob.bytes().size(), {}};
}

void expect_arrived(Link& link, const Blob& blob, PeerId from = alice) {
  ASSERT_EQ(link.arrivals.size(), 1u);
  ASSERT_TRUE(link.arrivals[0].blob.ok()) << link.arrivals[0].blob.error().message;
  EXPECT_EQ(link.arrivals[0].from, from);
  EXPECT_TRUE(std::ranges::equal(link.arrivals[0].blob->bytes(), blob.bytes()));
}
std::string error_of(const Link& link) {
  return link.arrivals.size() == 1 && !link.arrivals[0].blob.ok() ? link.arrivals[0].blob.error().message
                                                                  : "";
}

TEST(BulkFetch, AsksForAtMostItsCreditAtATime) {
  const Blob one = random_blob(120 * chunk_bytes), two = random_blob(40 * chunk_bytes + 5);
  Link link;
  link.offers[alice].add(one);
  link.offers[alice].add(two);
  link.fetcher.fetch(alice, ref_to(one), link.now);
  link.fetcher.fetch(alice, ref_to(two), link.now);
  while (link.arrivals.size() < 2) link.turn();
  EXPECT_EQ(link.most_out, BulkOptions().credit);
  EXPECT_EQ(link.asked, 120u + 41u);  // each chunk once
  for (const BlobArrived& arrival : link.arrivals) EXPECT_TRUE(arrival.blob.ok());
}

TEST(BulkFetch, GetsThroughLossAndDamage) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    KeyedRandom random(seed);
    const Blob blob = random_blob(20 * chunk_bytes + 17, seed);
    Link link;
    link.offers[alice].add(blob);
    int damaged = 0;
    link.interfere = [&](ChunkHeader&, Buffer& payload) {
      if (random.chance(0.1)) return false;
      if (damaged < 10 && random.chance(0.2)) {
        payload.bytes[random.below(payload.bytes.size())] ^= std::byte(1);
        ++damaged;
      }
      return true;
    };
    link.fetcher.fetch(alice, ref_to(blob), link.now);
    link.run();
    expect_arrived(link, blob);
    EXPECT_EQ(link.dropped(drop::checksum), static_cast<std::uint64_t>(damaged));
    EXPECT_EQ(link.counters.read().bulk_bytes_in, blob.bytes().size());
  }
}

TEST(BulkFetch, LeavesAPeerThatKeepsDamagingChunks) {
  const Blob blob = random_blob(3 * chunk_bytes);
  Link link;
  link.offers[alice].add(blob);
  link.interfere = [](ChunkHeader& header, Buffer&) { return ++header.checksum, true; };
  link.fetcher.fetch(alice, ref_to(blob), link.now);
  link.run();
  EXPECT_THAT(error_of(link), HasSubstr("damaged"));
  EXPECT_LT(link.asked, 40u);
}

TEST(BulkFetch, RefusesBytesThatAreAllWellSentButNotTheBlob) {
  const Blob blob = random_blob(2 * chunk_bytes, 1), other = random_blob(2 * chunk_bytes, 2);
  Link link;
  link.offers[alice].add(other);
  link.fetcher.fetch(alice, ref_to(blob), link.now);
  link.fetcher.work(link.now, [](PeerId, const ChunkRequest&) { return true; });
  for (std::uint64_t index : {0, 1}) {
    auto [header, bytes] = link.offers[alice].answer({other.digest, index});
    header.blob = blob.digest;
    link.fetcher.accept(alice, header, bytes.bytes, link.now);
  }
  link.turn();
  EXPECT_THAT(error_of(link), HasSubstr("another digest"));
  EXPECT_EQ(link.dropped(drop::digest), 1u);
}

TEST(BulkFetch, AsksAgainAfterSilenceAndGivesUpAfterMore) {
  const Blob blob = random_blob(4 * chunk_bytes);
  Link link;
  link.offers[alice].add(blob);
  link.answering = false;
  link.fetcher.fetch(alice, ref_to(blob), link.now);
  const Duration took = link.run(100ms);
  EXPECT_THAT(error_of(link), HasSubstr("nothing came"));
  EXPECT_NEAR(seconds(took), 20, 1);
  std::map<std::uint64_t, int> times;
  for (const auto& [to, request] : link.requests) ++times[request.index];
  EXPECT_EQ(times[0], 4);  // at 0, 2, 6 and 14 s
}

TEST(BulkFetch, AsksNothingTwiceOfAPeerWhoseAnswersTakeLong) {
  // As on a slow line that others share: each chunk comes later than the one before, the gaps grow past the
  // two seconds.
  const Blob blob = random_blob(40 * chunk_bytes);
  Link link;
  link.offers[alice].add(blob);
  link.fetcher.fetch(alice, ref_to(blob), link.now);
  for (int i = 0; link.arrivals.empty() && i < 1000; ++i) {
    link.answering = false;
    const Duration gap = std::min<Duration>(2500ms, 800ms + i * 100ms);
    for (Duration waited{}; waited < gap; waited += 100ms) link.turn(100ms);
    ASSERT_FALSE(link.requests.empty());
    const auto [to, request] = link.requests.front();  // one chunk at a time
    link.requests.pop_front();
    const auto [header, bytes] = link.offers[to].answer(request);
    link.fetcher.accept(to, header, bytes.bytes, link.now);
    for (BlobArrived& arrival : link.fetcher.take_done()) link.arrivals.push_back(std::move(arrival));
  }
  expect_arrived(link, blob);
  EXPECT_EQ(link.asked, 40u);
  EXPECT_EQ(link.dropped(drop::unexpected), 0u);
}

TEST(BulkFetch, WaitsForAPeerThatIsNotThereYet) {
  const Blob blob = random_blob(4 * chunk_bytes);
  Link link;
  link.offers[alice].add(blob);
  link.reachable = false;
  link.fetcher.fetch(alice, ref_to(blob), link.now);
  for (int i = 0; i < 50; ++i) link.turn(100ms);
  EXPECT_TRUE(link.arrivals.empty());
  EXPECT_LE(*link.fetcher.next_work(link.now), link.now + 20ms);
  link.reachable = true;
  link.run();
  expect_arrived(link, blob);
}

TEST(BulkFetch, WaitingBehindALargeBlobIsNoReasonToGiveUp) {
  const Blob large = random_blob(40 * chunk_bytes), small = random_blob(10);
  Link link;
  link.offers[alice].add(large);
  link.offers[alice].add(small);
  link.fetcher.fetch(alice, ref_to(large), link.now);
  link.fetcher.fetch(alice, ref_to(small), link.now);
  while (link.arrivals.size() < 2) link.turn(15s);  // slow: eight chunks in fifteen seconds
  EXPECT_TRUE(link.arrivals[0].blob.ok() && link.arrivals[1].blob.ok());
}

TEST(BulkFetch, GoesOnWithAnotherPeerThatHasTheBlob) {
  const Blob blob = random_blob(5 * chunk_bytes + 1);
  Link link;
  link.offers[bob].add(blob);
  link.fetcher.fetch(alice, ref_to(blob), link.now);
  link.fetcher.join(bob, blob.digest);
  link.run();
  expect_arrived(link, blob, bob);
}

TEST(BulkFetch, IgnoresChunksThatNobodyAskedFor) {
  const Blob blob = random_blob(2 * chunk_bytes);
  Link link;
  link.offers[alice].add(blob);
  const auto [header, bytes] = link.offers[alice].answer({blob.digest, 0});
  link.fetcher.accept(alice, header, bytes.bytes, link.now);  // no such fetch
  link.fetcher.fetch(alice, ref_to(blob), link.now);
  link.fetcher.accept(alice, header, bytes.bytes, link.now);  // not asked yet
  link.fetcher.work(link.now, [](PeerId, const ChunkRequest&) { return true; });
  link.fetcher.accept(bob, header, bytes.bytes, link.now);  // of another
  ChunkHeader beyond = header;
  beyond.index = ~0ull;
  link.fetcher.accept(alice, beyond, bytes.bytes, link.now);
  EXPECT_EQ(link.dropped(drop::unexpected), 4u);
  EXPECT_EQ(link.counters.read().bulk_bytes_in, 0u);
}

TEST(BulkFetch, TakesNoMemoryForABlobPastTheLimit) {
  Link link({.max_blob_bytes = 1000});
  link.fetcher.fetch(alice, {{1, 1}, 1001, {}}, link.now);
  link.turn();
  EXPECT_THAT(error_of(link), HasSubstr("larger than the limit of 1000 bytes"));
}

}  // namespace
}  // namespace tessera
