// Files in shared memory that are read in place: when one may be written again, and what is left of parties
// that end or die.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "comm/transport/bulk_shared.h"
#include "tests/comm/transport_fixtures.h"

namespace tessera {
namespace {

using test::random_blob;
using test::TemporaryFolder;

constexpr std::size_t size = 100'000;

class SharedFiles : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::unique_ptr<SharedFolder> writer_ = open(), reader_ = open();

  std::unique_ptr<SharedFolder> open() const { return SharedFolder::open(folder_.path()).value(); }

  /// A blob in memory of the folder.
  static Blob made_in(SharedFolder& folder, std::uint64_t seed) {
    const Blob filling = random_blob(size, seed);
    const Buffer buffer = folder.allocate(size).value();
    std::ranges::copy(filling.bytes(), buffer.bytes.begin());
    return Blob(buffer);
  }
  /// The same, published and forgotten by the writer's caller.
  static BlobRef published_by(SharedFolder& folder, std::uint64_t seed) {
    const Blob blob = made_in(folder, seed);
    return {blob.digest, size, folder.publish(blob).value()};
  }
  static ino_t inode(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
    return info.st_ino;
  }
  /// Names in the folder that begin so.
  std::vector<std::string> names(const std::string& prefix) const {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      if (entry.path().filename().string().starts_with(prefix)) found.push_back(entry.path().filename());
    }
    return found;
  }
  static bool is(const Buffer& buffer, const Digest& digest) {
    return digest_of(Bytes(buffer.bytes)) == digest;
  }
};

TEST_F(SharedFiles, NoFileIsWrittenAgainWhileAPartyHoldsIt) {
  const BlobRef ref = published_by(*writer_, 1);
  const ino_t file = inode(ref.path);
  Buffer held = reader_->hold(ref).value();
  Buffer twice = reader_->hold(ref).value();
  writer_->remove(ref.digest);
  for (std::uint64_t seed = 2; seed < 6; ++seed) {  // the writer goes on
    const BlobRef next = published_by(*writer_, seed);
    EXPECT_NE(inode(next.path), file);
    writer_->remove(next.digest);
  }
  EXPECT_TRUE(is(held, ref.digest));
  held = {};
  EXPECT_TRUE(is(twice, ref.digest));
  EXPECT_TRUE(names("spare-").empty());
  EXPECT_FALSE(reader_->hold(ref).ok()) << "it is removed";
  twice = {};
  EXPECT_EQ(names("spare-").size(), 1u);  // whoever was last left it to anybody
}

/// Of a mapping of this process: KiB of it that are mapped by huge pages; none: its address is unknown.
std::optional<long> huge_kilobytes(const std::byte* memory) {
  std::ifstream maps("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(maps, line);) {
    std::uintptr_t begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2)
      here =
          begin <= reinterpret_cast<std::uintptr_t>(memory) && reinterpret_cast<std::uintptr_t>(memory) < end;
    if (here && line.starts_with("ShmemPmdMapped:")) return std::stol(line.substr(15));
  }
  return std::nullopt;
}

/// Whether this kernel makes huge pages of a memory file's small ones when it is asked to.
bool makes_huge_pages(const std::string& folder) {
  constexpr std::size_t huge = std::size_t{2} << 20;
  const std::string path = folder + "/probe";
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT, 0600);
  EXPECT_EQ(::posix_fallocate(file, 0, huge), 0);
  void* const room = ::mmap(nullptr, 2 * huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const std::uintptr_t at = (reinterpret_cast<std::uintptr_t>(room) + huge - 1) / huge * huge;
  void* const memory =
      ::mmap(reinterpret_cast<void*>(at), huge, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
  const bool made = ::madvise(memory, huge, 25) == 0;  // MADV_COLLAPSE
  ::munmap(room, 2 * huge);
  ::close(file);
  std::filesystem::remove(path);
  return made;
}

TEST_F(SharedFiles, LargeFilesLieOnHugePagesForAllParties) {
  constexpr std::size_t large = (std::size_t{5} << 20) + 12345;  // two huge pages and something
  const Blob filling = random_blob(large, 3);
  Buffer buffer = writer_->allocate(large).value();
  std::ranges::copy(filling.bytes(), buffer.bytes.begin());
  const Blob blob(buffer);
  ASSERT_EQ(blob.digest, filling.digest);
  const Buffer held = reader_->hold({blob.digest, large, writer_->publish(blob).value()}).value();
  EXPECT_TRUE(is(held, blob.digest));
  for (const Buffer* mapped : {static_cast<const Buffer*>(&buffer), &held})
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(mapped->bytes.data()) % (std::size_t{2} << 20), 0u);
  if (!makes_huge_pages(folder_.path())) GTEST_SKIP() << "this kernel makes no huge pages of small ones";
  EXPECT_EQ(huge_kilobytes(buffer.bytes.data()), 4096);
  EXPECT_EQ(huge_kilobytes(held.bytes.data()), 4096);
}

TEST_F(SharedFiles, TheLastHolderLeavesTheFileToTheNextWriter) {
  const BlobRef ref = published_by(*writer_, 1);
  const ino_t file = inode(ref.path);
  Buffer held = reader_->hold(ref).value();
  writer_->remove(ref.digest);
  held = {};
  EXPECT_EQ(inode(published_by(*writer_, 2).path), file) << "no fresh pages";
  // By another party than the one that made it, too; but not one of another size.
  const BlobRef other = published_by(*writer_, 3);
  const ino_t others = inode(other.path);
  held = reader_->hold(other).value();
  writer_->remove(other.digest);
  held = {};
  const Buffer larger = reader_->allocate(size + 1).value();
  EXPECT_EQ(names("spare-").size(), 1u);
  EXPECT_EQ(inode(published_by(*reader_, 4).path), others);
  EXPECT_TRUE(names("spare-").empty());
}

TEST_F(SharedFiles, ASpareFileThatItsWriterStillPublishesIsLeftAlone) {
  const BlobRef ref = published_by(*writer_, 1);
  Buffer held = reader_->hold(ref).value();
  // The reader has told everybody that it is done; the writer has not heard of it yet.
  std::filesystem::create_hard_link(reader_->path_of(held), folder_.path() + "/" + kept_name(ref.digest));
  held = {};
  std::filesystem::rename(folder_.path() + "/" + kept_name(ref.digest),
                          folder_.path() + "/" + spare_name(size));
  const Blob mine = made_in(*reader_, 2);
  EXPECT_TRUE(is(reader_->hold(ref).value(), ref.digest));
  EXPECT_EQ(names("spare-").size(), 1u);
  writer_->remove(ref.digest);
  const Blob next = made_in(*reader_, 3);
  EXPECT_TRUE(names("spare-").empty()) << "now it is used";
}

TEST_F(SharedFiles, AKeptFileOutlastsAllParties) {
  const BlobRef ref = published_by(*writer_, 1);
  const std::string kept = folder_.path() + "/" + kept_name(ref.digest);
  Buffer held = reader_->hold(ref).value();
  EXPECT_EQ(reader_->path_of(random_blob(10, 1).buffer), "");
  std::filesystem::create_hard_link(reader_->path_of(held), kept);
  writer_->remove(ref.digest);
  writer_.reset();
  reader_.reset();
  EXPECT_TRUE(is(held, ref.digest)) << "buffers outlive the folder";
  held = {};
  const auto left = names("");
  EXPECT_THAT(left, testing::ElementsAre(kept_name(ref.digest)));
  remove_shared_folder(folder_.path(), true);
  EXPECT_TRUE(std::filesystem::exists(kept));
  remove_shared_folder(folder_.path(), false);
  EXPECT_FALSE(std::filesystem::exists(folder_.path()));
}

TEST_F(SharedFiles, WhatAKilledPartyLeftGoesWhenTheNextOneComes) {
  const BlobRef alive = published_by(*writer_, 1);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto own = open().release();
    published_by(*own, 2);
    new Buffer(own->allocate(size).value());
    new Buffer(own->hold(alive).value());
    ::_exit(0);  // as a kill would
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(names("own-").size(), 3u);
  EXPECT_EQ(names("party-").size(), 3u);
  const auto next = open();
  EXPECT_EQ(names("own-").size(), 1u);
  EXPECT_EQ(names("held-").size(), 0u);
  EXPECT_EQ(names("party-").size(), 3u);  // writer, reader, next
  EXPECT_TRUE(is(next->hold(alive).value(), alive.digest)) << "the living are left alone";
  EXPECT_EQ(std::filesystem::hard_link_count(alive.path), 2u);
}

TEST_F(SharedFiles, DesertedFoldersGo) {
  const std::string prefix = folder_.path() + "/run-";
  const auto make = [&](const char* name) {
    auto made = SharedFolder::open(prefix + name).value();
    published_by(*made, 1);
    return made;
  };
  const auto there = [&](const char* name) { return std::filesystem::exists(prefix + name); };
  const auto alive = make("alive");
  std::filesystem::create_directory(prefix + "kept");
  std::ofstream(prefix + "kept/" + kept_name({1, 2})) << "still wanted";
  std::filesystem::create_directory(prefix + "left");
  std::ofstream(prefix + "left/own-1") << "of a party that was killed";
  std::ofstream(prefix + "left/party-1");
  remove_deserted_folders(prefix);
  EXPECT_TRUE(there("left")) << "that was just now";
  remove_deserted_folders(prefix, {});
  EXPECT_FALSE(there("left"));
  EXPECT_TRUE(there("alive"));
  EXPECT_TRUE(there("kept"));
  remove_deserted_folders(folder_.path() + "/no-such-folder/run-", {});
}

}  // namespace
}  // namespace tessera
