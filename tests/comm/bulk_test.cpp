// The bulk path without sockets, in virtual time: credit, repetition, damage, limits, and the shared-memory
// folder.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <deque>
#include <filesystem>
#include <fstream>
#include <set>

#include "comm/drop_reasons.h"
#include "comm/transport/bulk_fetch.h"
#include "comm/transport/bulk_offers.h"
#include "tests/comm/transport_fixtures.h"

namespace tessera {
namespace {

using namespace std::chrono_literals;
using test::random_blob;
using test::TemporaryFolder;
using testing::HasSubstr;

const PeerId alice{1, 1}, bob{1, 2};

// A fetcher, and peers that answer a step later unless a test interferes.
class Link {
 public:
  explicit Link(BulkOptions options = {}, SharedFolder* shared = nullptr)
      : fetcher(options, shared, counters) {}

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

class Shared : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::unique_ptr<SharedFolder> shared_ = SharedFolder::open(folder_.path()).value();
  Blob blob_ = random_blob(80 * chunk_bytes + 9);

  BlobRef published() {
    BlobRef ref = ref_to(blob_);
    ref.path = shared_->publish(blob_).value();
    return ref;
  }
};

TEST_F(Shared, BlobsAreMappedAndVerifiedWithoutAskingThePeer) {
  Link link({}, shared_.get());
  link.fetcher.fetch(alice, published(), link.now);
  link.run();
  expect_arrived(link, blob_);
  EXPECT_EQ(link.asked, 0u);
  EXPECT_EQ(link.counters.read().shared_bytes_in, blob_.bytes().size());
  shared_->remove(blob_.digest);  // what was mapped stays
  EXPECT_FALSE(std::filesystem::exists(folder_.path() + "/" + blob_.digest.hex()));
  EXPECT_EQ(digest_of(link.arrivals[0].blob->bytes()), blob_.digest);
}

TEST_F(Shared, FilesAreUsedAgainOnceTheirBlobsAreRemoved) {
  const auto inode = [](const std::string& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0);
    return info.st_ino;
  };
  const auto make = [&](std::uint64_t seed) {
    const Blob filling = random_blob(blob_.bytes().size(), seed);
    Buffer buffer = shared_->allocate(blob_.bytes().size()).value();
    std::ranges::copy(filling.bytes(), buffer.bytes.begin());
    return Blob(buffer);
  };
  std::set<ino_t> used;
  Link link({}, shared_.get());
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const Blob blob = make(seed);
    BlobRef ref = ref_to(blob);
    ref.path = shared_->publish(blob).value();
    used.insert(inode(ref.path));
    link.arrivals.clear();
    link.fetcher.fetch(alice, ref, link.now);
    link.run();
    expect_arrived(link, blob);
    shared_->remove(blob.digest);
  }
  EXPECT_LE(used.size(), 2u);  // one while the last buffer is still held
  EXPECT_EQ(link.counters.read().shared_bytes_in, 10 * blob_.bytes().size());
}

TEST_F(Shared, AFileThatIsWrittenAgainWhileItIsReadIsNotTakenForTheBlob) {
  Link link({}, shared_.get());
  Buffer buffer = shared_->allocate(blob_.bytes().size()).value();
  std::ranges::copy(blob_.bytes(), buffer.bytes.begin());
  Blob own;
  own.buffer = buffer;
  own.digest = blob_.digest;
  BlobRef ref = ref_to(blob_);
  ref.path = shared_->publish(own).value();
  link.offers[alice].add(blob_);
  link.fetcher.fetch(alice, ref, link.now);
  link.turn();  // a part is copied
  const Blob other = random_blob(blob_.bytes().size(), 99);
  std::ranges::copy(other.bytes(), buffer.bytes.begin());
  link.run();
  expect_arrived(link, blob_);  // from alice herself
  EXPECT_EQ(link.dropped(drop::digest), 1u);
  EXPECT_EQ(link.counters.read().shared_bytes_in, 0u);
}

TEST_F(Shared, FolderAndFilesAreClosedToOthers) {
  const BlobRef ref = published();
  struct stat info {};
  ASSERT_EQ(::stat(folder_.path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
  ASSERT_EQ(::stat(ref.path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  ASSERT_EQ(::chmod(folder_.path().c_str(), 0755), 0);
  const auto again = SharedFolder::open(folder_.path());
  ASSERT_FALSE(again.ok());
  EXPECT_THAT(again.error().message, HasSubstr(folder_.path()));
}

TEST_F(Shared, PathsOutsideTheFolderAreRefused) {
  TemporaryFolder elsewhere;
  const auto other = SharedFolder::open(elsewhere.path()).value();
  const std::string name = blob_.digest.hex();
  BlobRef ref = ref_to(blob_);
  for (const std::string& path :
       {other->publish(blob_).value(), std::string("/etc/passwd"), folder_.path() + "/../" + name,
        folder_.path() + "/" + std::string(32, '0'), name}) {
    SCOPED_TRACE(path);
    ref.path = path;
    Link link({}, shared_.get());
    link.fetcher.fetch(alice, ref, link.now);  // alice offers nothing
    link.run();
    EXPECT_THAT(error_of(link), HasSubstr("does not offer"));
    EXPECT_EQ(link.dropped(drop::shared_path), 1u);
  }
}

TEST_F(Shared, LinksWrongSizesAndChangedBytesAreNotTakenForTheBlob) {
  TemporaryFolder elsewhere;
  const auto other = SharedFolder::open(elsewhere.path()).value();
  const BlobRef ref = published();
  const auto expect_from_the_peer = [&](std::uint64_t wrong_digests) {
    Link link({}, shared_.get());
    link.offers[alice].add(blob_);
    link.fetcher.fetch(alice, ref, link.now);
    link.run();
    expect_arrived(link, blob_);
    EXPECT_EQ(link.counters.read().shared_bytes_in, 0u);
    EXPECT_EQ(link.dropped(drop::digest), wrong_digests);
  };
  {
    std::fstream file(ref.path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(1000).put(static_cast<char>(~static_cast<int>(blob_.bytes()[1000])));
  }
  expect_from_the_peer(1);
  std::filesystem::resize_file(ref.path, 100);
  expect_from_the_peer(0);
  std::filesystem::remove(ref.path);
  std::filesystem::create_symlink(other->publish(blob_).value(), ref.path);
  expect_from_the_peer(0);
  std::filesystem::remove(ref.path);
  ASSERT_EQ(::mkfifo(ref.path.c_str(), 0600), 0);
  expect_from_the_peer(0);
}

}  // namespace
}  // namespace tessera
