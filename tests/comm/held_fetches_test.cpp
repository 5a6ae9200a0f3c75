// Blobs from shared memory: what is taken for the blob, and what is not.
#include "comm/transport/held_fetches.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "comm/drop_reasons.h"
#include "tests/comm/transport_fixtures.h"

namespace tessera {
namespace {

using test::random_blob;
using test::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

const PeerId alice{1, 1}, bob{1, 2};
const HeldFetches::Options options{.max_blob_bytes = 10 << 20, .looks_for_non_finite = true};

class Held : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::unique_ptr<SharedFolder> shared_ = SharedFolder::open(folder_.path()).value();
  CounterBook counters_;
  HeldFetches fetches_{shared_.get(), options, counters_};
  Blob blob_ = random_blob(3'000'009);

  BlobRef published(const Blob& blob) {
    return {blob.digest, blob.bytes().size(), shared_->publish(blob).value()};
  }
  void expect_arrived(const Blob& blob) {
    const HeldFetches::Verified verified = fetches_.verify();
    EXPECT_THAT(verified.refused, IsEmpty());
    ASSERT_THAT(verified.arrived, SizeIs(1));
    EXPECT_EQ(verified.arrived[0].from, alice);
    EXPECT_EQ(verified.arrived[0].ref.digest, blob.digest);
    ASSERT_TRUE(verified.arrived[0].blob.ok());
    EXPECT_TRUE(std::ranges::equal(verified.arrived[0].blob->bytes(), blob.bytes()));
  }
  std::uint64_t dropped(const char* reason) { return counters_.read().dropped[reason]; }
};

TEST_F(Held, BlobsAreReadInPlaceAndVerified) {
  ASSERT_TRUE(fetches_.fetch(alice, published(blob_)));
  EXPECT_TRUE(fetches_.any());
  const HeldFetches::Verified verified = fetches_.verify();
  EXPECT_FALSE(fetches_.any());
  ASSERT_THAT(verified.arrived, SizeIs(1));
  EXPECT_EQ(counters_.read().shared_bytes_in, blob_.bytes().size());
  shared_->remove(blob_.digest);  // what was mapped stays
  EXPECT_FALSE(std::filesystem::exists(folder_.path() + "/" + blob_.digest.hex()));
  EXPECT_EQ(digest_of(verified.arrived[0].blob->bytes()), blob_.digest);
}

TEST_F(Held, SeveralAreVerifiedSideBySideAndEachOnItsOwn) {
  const Blob other = random_blob(2'000'000, 5);
  const BlobRef good = published(other), bad = published(blob_);
  ASSERT_TRUE(fetches_.fetch(alice, bad));
  ASSERT_TRUE(fetches_.fetch(bob, good));
  EXPECT_TRUE(fetches_.join(bob, bad.digest));
  EXPECT_TRUE(fetches_.join(bob, bad.digest)) << "once is enough";
  EXPECT_FALSE(fetches_.join(bob, {9, 9}));
  std::fstream(bad.path, std::ios::in | std::ios::out | std::ios::binary).seekp(2'999'999).put('?').put('!');
  const HeldFetches::Verified verified = fetches_.verify();
  ASSERT_THAT(verified.arrived, SizeIs(1));
  EXPECT_EQ(verified.arrived[0].from, bob);
  ASSERT_THAT(verified.refused, SizeIs(1));
  EXPECT_EQ(verified.refused[0].ref, bad);
  EXPECT_THAT(verified.refused[0].from, ElementsAre(alice, bob));
  EXPECT_EQ(dropped(drop::digest), 1u);
  EXPECT_EQ(counters_.read().shared_bytes_in, other.bytes().size());
}

TEST_F(Held, SaysWhetherAllNumbersAreFinite) {
  for (const float last : {1e30f, NAN}) {
    Buffer numbers = shared_->allocate(1'000'000 * sizeof(float)).value();
    const std::span<float> values(reinterpret_cast<float*>(numbers.bytes.data()), 1'000'000);
    std::ranges::fill(values, -2.0f);
    values.back() = last;
    const BlobRef ref = published(Blob(numbers));
    ASSERT_TRUE(fetches_.fetch(alice, ref));
    EXPECT_EQ(fetches_.verify().arrived.at(0).is_finite, std::isfinite(last));
    HeldFetches blind(shared_.get(), {.max_blob_bytes = 10 << 20}, counters_);
    ASSERT_TRUE(blind.fetch(alice, ref));
    EXPECT_FALSE(blind.verify().arrived.at(0).is_finite) << "nobody has looked";
  }
}

TEST_F(Held, FilesAreUsedAgainOnceTheirBlobsAreRemoved) {
  std::set<ino_t> used;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    const Blob filling = random_blob(blob_.bytes().size(), seed);
    Buffer buffer = shared_->allocate(blob_.bytes().size()).value();
    std::ranges::copy(filling.bytes(), buffer.bytes.begin());
    const Blob blob(std::move(buffer));
    const BlobRef ref = published(blob);
    struct stat info {};
    ASSERT_EQ(::stat(ref.path.c_str(), &info), 0);
    used.insert(info.st_ino);
    ASSERT_TRUE(fetches_.fetch(alice, ref));
    expect_arrived(blob);
    shared_->remove(blob.digest);
  }
  EXPECT_LE(used.size(), 2u);  // one while the last buffer is still held
  EXPECT_EQ(counters_.read().shared_bytes_in, 10 * blob_.bytes().size());
}

TEST_F(Held, AFileThatIsWrittenAgainBeforeItIsVerifiedIsNotTakenForTheBlob) {
  Buffer buffer = shared_->allocate(blob_.bytes().size()).value();
  std::ranges::copy(blob_.bytes(), buffer.bytes.begin());
  const BlobRef ref = published(Blob(buffer));
  ASSERT_TRUE(fetches_.fetch(alice, ref));
  const Blob other = random_blob(blob_.bytes().size(), 99);
  std::ranges::copy(other.bytes(), buffer.bytes.begin());
  const HeldFetches::Verified verified = fetches_.verify();
  EXPECT_THAT(verified.arrived, IsEmpty());
  EXPECT_THAT(verified.refused, SizeIs(1));
  EXPECT_EQ(dropped(drop::digest), 1u);
  EXPECT_EQ(counters_.read().shared_bytes_in, 0u);
}

TEST_F(Held, FolderAndFilesAreClosedToOthers) {
  const BlobRef ref = published(blob_);
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

TEST_F(Held, PathsOutsideTheFolderAreNotHeld) {
  TemporaryFolder elsewhere;
  const auto other = SharedFolder::open(elsewhere.path()).value();
  const std::string name = blob_.digest.hex();
  BlobRef ref{blob_.digest, blob_.bytes().size(), {}};
  std::uint64_t refused = 0;
  for (const std::string& path :
       {other->publish(blob_).value(), std::string("/etc/passwd"), folder_.path() + "/../" + name,
        folder_.path() + "/" + std::string(32, '0'), name}) {
    SCOPED_TRACE(path);
    ref.path = path;
    EXPECT_FALSE(fetches_.fetch(alice, ref));
    EXPECT_EQ(dropped(drop::shared_path), ++refused);
  }
  EXPECT_FALSE(fetches_.any());
}

TEST_F(Held, LinksAndWrongSizesAreNotHeld) {
  TemporaryFolder elsewhere;
  const auto other = SharedFolder::open(elsewhere.path()).value();
  const BlobRef ref = published(blob_);
  std::filesystem::resize_file(ref.path, 100);
  EXPECT_FALSE(fetches_.fetch(alice, ref));
  std::filesystem::remove(ref.path);
  EXPECT_FALSE(fetches_.fetch(alice, ref));
  std::filesystem::create_symlink(other->publish(blob_).value(), ref.path);
  EXPECT_FALSE(fetches_.fetch(alice, ref));
  std::filesystem::remove(ref.path);
  ASSERT_EQ(::mkfifo(ref.path.c_str(), 0600), 0);
  EXPECT_FALSE(fetches_.fetch(alice, ref));
}

TEST_F(Held, WhatIsPastTheLimitOrInNoFolderIsNotHeld) {
  const BlobRef ref = published(blob_);
  HeldFetches small(shared_.get(), {.max_blob_bytes = 1000}, counters_), none(nullptr, options, counters_);
  EXPECT_FALSE(small.fetch(alice, ref));
  EXPECT_FALSE(none.fetch(alice, ref));
  EXPECT_FALSE(fetches_.fetch(alice, {blob_.digest, blob_.bytes().size(), {}}));
}

}  // namespace
}  // namespace tessera
