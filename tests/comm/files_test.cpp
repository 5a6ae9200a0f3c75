#include "comm/storage/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

#include "comm/storage/directory_lock.h"
#include "tests/comm/memory_files.h"
#include "tests/comm/scratch_folder.h"

namespace tessera {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string text_of(const Path& path, const FileSystem& files = disk()) {
  const Result<Buffer> file = read_file(path, default_read_cap, files);
  if (!file.ok()) return "<" + file.error().message + ">";
  return {reinterpret_cast<const char*>(file->bytes.data()), file->bytes.size()};
}

std::vector<std::string> names_in(const Path& folder, const FileSystem& files = disk()) {
  std::vector<std::string> names;
  const auto entries = list_folder(folder, files);
  EXPECT_TRUE(entries.ok());
  if (!entries.ok()) return names;
  for (const FolderEntry& entry : *entries) names.push_back(entry.name);
  return names;
}

TEST(Files, AreReplacedAsAWholeAndPrivate) {
  ScratchFolder scratch;
  const Path folder = scratch.path() / "a" / "b";
  ASSERT_TRUE(make_folder(folder).ok());
  ASSERT_TRUE(make_folder(folder).ok());
  const Path path = folder / "file";
  ASSERT_TRUE(atomic_write(path, "old", Durability::process).ok());
  const std::string first = "new, ", second = "in parts";
  const Bytes parts[] = {std::as_bytes(std::span(first)), std::as_bytes(std::span(second))};
  ASSERT_TRUE(atomic_write(path, parts, Durability::machine).ok());
  EXPECT_EQ(text_of(path), "new, in parts");
  EXPECT_THAT(names_in(folder), ElementsAre("file"));
  struct stat about {};
  ASSERT_EQ(::stat(path.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
  ASSERT_EQ(::stat(folder.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0700u);
  const Result<Buffer> mapped = map_file(path);
  ASSERT_TRUE(mapped.ok());
  EXPECT_EQ(mapped->bytes.size(), 13u);
}

TEST(Files, RefuseWhatIsTooLargeMissingOrNoFile) {
  ScratchFolder scratch;
  ASSERT_TRUE(atomic_write(scratch.path() / "file", "12345", Durability::process).ok());
  ASSERT_EQ(::symlink("file", (scratch.path() / "link").c_str()), 0);
  ASSERT_EQ(::mkfifo((scratch.path() / "pipe").c_str(), 0600), 0);
  for (const auto read : {+[](const Path& path) { return read_file(path, 4); },
                          +[](const Path& path) { return map_file(path, 4); }}) {
    EXPECT_THAT(read(scratch.path() / "file").error().message, HasSubstr("5 bytes, more than the 4"));
    EXPECT_THAT(read(scratch.path() / "none").error().message,
                HasSubstr("none: No such file or directory (ENOENT)"));
    EXPECT_THAT(read(scratch.path() / "link").error().message, HasSubstr("ELOOP"));
    EXPECT_THAT(read(scratch.path() / "pipe").error().message, HasSubstr("not a regular file"));
    EXPECT_THAT(read(scratch.path()).error().message, HasSubstr("not a regular file"));
  }
}

TEST(Files, RemovalNeverFollowsALink) {
  ScratchFolder scratch;
  const Path keep = scratch.path() / "keep", work = scratch.path() / "work";
  ASSERT_TRUE(make_folder(keep).ok());
  ASSERT_TRUE(atomic_write(keep / "file", "mine", Durability::process).ok());
  ASSERT_TRUE(make_folder(work / "deep" / "er").ok());
  ASSERT_EQ(::symlink(keep.c_str(), (work / "deep" / "link").c_str()), 0);
  ASSERT_EQ(::symlink(keep.c_str(), (work / ".tmp-link").c_str()), 0);
  ASSERT_TRUE(remove_leftovers(work).ok());
  EXPECT_THAT(names_in(work), ElementsAre("deep"));
  ASSERT_TRUE(remove_all_in(work).ok());
  EXPECT_THAT(names_in(work), IsEmpty());
  EXPECT_EQ(text_of(keep / "file"), "mine");
  ASSERT_EQ(::symlink(keep.c_str(), (work / "link").c_str()), 0);
  EXPECT_FALSE(remove_all_in(work / "link").ok());
  EXPECT_FALSE(list_folder(work / "link").ok());
}

TEST(Files, LeftoversOfACrashAreRecognised) {
  ScratchFolder scratch;
  ASSERT_TRUE(make_folder(scratch.path() / tmp_name_for("00000007") / "x").ok());
  ASSERT_TRUE(disk().write_new(tmp_name_for(scratch.path() / "file"), {}, Durability::process).ok());
  ASSERT_TRUE(atomic_write(scratch.path() / "file", "kept", Durability::process).ok());
  ASSERT_TRUE(remove_leftovers(scratch.path()).ok());
  EXPECT_THAT(names_in(scratch.path()), ElementsAre("file"));
  EXPECT_TRUE(remove_leftovers(scratch.path() / "none").ok());
}

TEST(Files, AFullDiskLeavesTheOldFileAndNoTmp) {
  ScratchFolder scratch;
  const Path path = scratch.path() / "file";
  ASSERT_TRUE(atomic_write(path, "old", Durability::machine).ok());
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{4096, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string large(10000, 'x');
  const Bytes part = std::as_bytes(std::span(large));
  const Status written = atomic_write(path, large, Durability::machine);
  const Status created = disk().write_new(scratch.path() / "other", std::span(&part, 1), Durability::process);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, ignored);
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().code, ExitCode::storage);
  EXPECT_THAT(written.error().message, HasSubstr("EFBIG"));
  EXPECT_THAT(written.error().message, HasSubstr(path.string()));
  EXPECT_FALSE(created.ok());
  EXPECT_EQ(text_of(path), "old");
  EXPECT_THAT(names_in(scratch.path()), ElementsAre("file"));
}

TEST(Files, AWriteOverAFolderLeavesItAndNoTmp) {
  ScratchFolder scratch;
  ASSERT_TRUE(make_folder(scratch.path() / "folder" / "in it").ok());
  EXPECT_THAT(atomic_write(scratch.path() / "folder", "text", Durability::process).error().message,
              HasSubstr("EISDIR"));
  EXPECT_THAT(names_in(scratch.path()), ElementsAre("folder"));
}

TEST(Files, AtomicWriteSurvivesACrashAtEveryOperation) {
  KeyedRandom random(3);
  for (std::uint64_t k = 1; k <= 4; ++k) {
    for (auto loss : {MemoryFiles::Loss::nothing, MemoryFiles::Loss::unsynced, MemoryFiles::Loss::random}) {
      MemoryFiles files;
      ASSERT_TRUE(files.make_folder("/run").ok());
      ASSERT_TRUE(atomic_write("/run/file", "old content", Durability::machine, files).ok());
      files.settle();
      files.crash_at = k;
      EXPECT_THROW((void)atomic_write("/run/file", "new content", Durability::machine, files), Crash);
      files.restart(loss, random);
      EXPECT_THAT(text_of("/run/file", files), testing::AnyOf("old content", "new content"))
          << "crash at operation " << k;
      ASSERT_TRUE(remove_leftovers("/run", files).ok());
      EXPECT_THAT(names_in("/run", files), ElementsAre("file"));
    }
  }
}

TEST(DirectoryLock, TheSecondIsToldWhoHoldsIt) {
  ScratchFolder scratch;
  {
    Result<DirectoryLock> first = DirectoryLock::take(scratch.path() / "run");
    ASSERT_TRUE(first.ok()) << first.error().message;
    const DirectoryLock moved = std::move(first).value();
    const Result<DirectoryLock> second = DirectoryLock::take(scratch.path() / "run");
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().code, ExitCode::fenced);
    EXPECT_THAT(second.error().message, HasSubstr("pid " + std::to_string(::getpid()) + " on host "));
  }
  EXPECT_TRUE(DirectoryLock::take(scratch.path() / "run").ok());
}

TEST(DirectoryLock, ANewEpochFencesTheOldOne) {
  ScratchFolder scratch;
  const Path& run = scratch.path();
  EXPECT_FALSE(is_newest_epoch(run, Epoch{1}));
  const Result<Epoch> first = claim_next_epoch(run);
  ASSERT_TRUE(first.ok()) << first.error().message;
  EXPECT_EQ(first->value, 1u);
  EXPECT_TRUE(is_newest_epoch(run, *first));
  EXPECT_TRUE(require_newest_epoch(run, *first).ok());
  const Result<Epoch> second = claim_next_epoch(run);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->value, 2u);
  EXPECT_FALSE(is_newest_epoch(run, *first));
  EXPECT_EQ(require_newest_epoch(run, *first).error().code, ExitCode::fenced);
}

TEST(DirectoryLock, AnEpochIsNeverClaimedTwiceNorLostInAPowerCut) {
  KeyedRandom random(4);
  MemoryFiles files;
  ASSERT_TRUE(files.make_folder("/run").ok());
  files.settle();
  for (std::uint64_t n = 1; n <= 3; ++n) {
    EXPECT_EQ(claim_next_epoch("/run", files)->value, n);
    files.restart(MemoryFiles::Loss::unsynced, random);
  }
  files.fail_at = 1;
  EXPECT_FALSE(claim_next_epoch("/run", files).ok());
}

TEST(Files, AFileInThePlaceOfASpareHasItsOwnBytesAlone) {
  const ScratchFolder scratch;
  const Path spare = scratch.path() / "spare", path = scratch.path() / "file";
  for (const std::string old : {"", "short", "longer than what comes after it"}) {
    for (const Durability durability : {Durability::process, Durability::machine}) {
      ASSERT_TRUE(atomic_write(spare, old, durability).ok());
      const Bytes part = std::as_bytes(std::span(std::string_view("twelve bytes")));
      ASSERT_TRUE(atomic_replace(spare, path, std::span(&part, 1), durability).ok());
      const Result<Buffer> read = read_file(path);
      ASSERT_TRUE(read.ok());
      EXPECT_TRUE(std::ranges::equal(read->bytes, part));
      EXPECT_EQ(list_folder(scratch.path())->size(), 1u);  // the spare is gone, and nothing is left over
    }
  }
}

}  // namespace
}  // namespace tessera
