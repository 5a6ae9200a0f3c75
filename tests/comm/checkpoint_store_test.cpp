#include "comm/storage/checkpoint_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <iostream>

#include "comm/hash.h"
#include "comm/storage/files.h"
#include "comm/storage/safetensors.h"
#include "tests/comm/memory_files.h"
#include "tests/comm/scratch_folder.h"

namespace tessera {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr CheckpointIdentity mine{{1, 2}, {3, 4}};

/// The state of a version: its numbers tell which version it is.
TensorMap tensors_of(std::int64_t version, std::size_t count = 6) {
  const std::vector<float> values(count, static_cast<float>(version));
  return {{"w", HostTensor::of<float>(DType::f32, {static_cast<std::int64_t>(count)}, values)},
          {"b", HostTensor::of<std::int64_t>(DType::i64, {1}, {version})}};
}
Shards shards_of(std::int64_t version, std::size_t count = 6) {
  return {{"parameters", tensors_of(version, count)},
          {"slot-00", encode_safetensors(tensors_of(version + 100))}};
}
std::string extra_of(std::int64_t version) {
  return "{\"chain\":\"" + std::to_string(version * 11) + "\"}";
}

Status write(CheckpointStore& store, std::int64_t version, Durability durability = Durability::machine) {
  return store.write(Version{version}, shards_of(version), extra_of(version), durability);
}

void expect_is(const Checkpoint& checkpoint, std::int64_t version) {
  ASSERT_EQ(checkpoint.version.value, version);
  ASSERT_EQ(checkpoint.extra, extra_of(version));
  ASSERT_TRUE(bit_equal(checkpoint.tensors("parameters").value(), tensors_of(version)));
  ASSERT_TRUE(bit_equal(checkpoint.tensors("slot-00").value(), tensors_of(version + 100)));
}

std::vector<std::int64_t> versions_in(const CheckpointStore& store) {
  std::vector<std::int64_t> values;
  const Result<std::vector<Version>> versions = store.versions();
  for (Version version : *versions) values.push_back(version.value);
  return values;
}

TEST(CheckpointStore, LoadsWhatWasWrittenAndKeepsTheNewest) {
  ScratchFolder scratch;
  CheckpointStore store(scratch.path() / "checkpoints", mine);
  EXPECT_FALSE(store.newest_complete().checkpoint.has_value());
  for (std::int64_t version : {3, 7, 12}) ASSERT_TRUE(write(store, version).ok());
  expect_is(store.load(Version{7}).value(), 7);
  expect_is(*store.newest_complete().checkpoint, 12);
  EXPECT_TRUE(write(store, 12).ok()) << "writing the same again is fine";
  const Status other = store.write(Version{12}, shards_of(13), "{}", Durability::process);
  ASSERT_FALSE(other.ok());
  EXPECT_THAT(other.error().message, HasSubstr("never rewritten"));
  EXPECT_THAT(store.load(Version{4}).error().message, HasSubstr("no checkpoint 4"));
  EXPECT_THAT(store.load(Version{7})->tensors("slot-01").error().message, HasSubstr("no shard slot-01"));
  ASSERT_TRUE(store.keep_newest(2).ok());
  EXPECT_THAT(versions_in(store), ElementsAre(7, 12));
}

TEST(CheckpointStore, KeepNeverDeletesTheNewestThatLoads) {
  MemoryFiles files;
  CheckpointStore store("/c", mine, files);
  for (std::int64_t version : {1, 2, 3, 4}) ASSERT_TRUE(write(store, version).ok());
  files.content("/c/00000003/manifest.json")->pop_back();
  files.content("/c/00000004/parameters.safetensors")->pop_back();
  ASSERT_TRUE(files.make_folder("/c/.tmp-00000005-rubbish/deep").ok());
  ASSERT_TRUE(store.keep_newest(1).ok());
  EXPECT_THAT(versions_in(store), ElementsAre(2, 3, 4));
  EXPECT_FALSE(files.exists("/c/.tmp-00000005-rubbish"));
  const auto newest = store.newest_complete();
  expect_is(*newest.checkpoint, 2);
  EXPECT_THAT(newest.skipped,
              ElementsAre(AllOf(HasSubstr("00000004/parameters.safetensors"), HasSubstr("cut short")),
                          AllOf(HasSubstr("00000003/manifest.json"), HasSubstr("checksum"))));
  ASSERT_TRUE(write(store, 4).ok()) << "a damaged one is written again";
  expect_is(store.load(Version{4}).value(), 4);
}

TEST(CheckpointStore, EveryDamageIsNamed) {
  MemoryFiles whole;
  CheckpointStore store("/c", mine, whole);
  ASSERT_TRUE(write(store, 5).ok() && write(store, 6).ok());
  const Path shard = "/c/00000005/parameters.safetensors", manifest = "/c/00000005/manifest.json";
  const auto damage = [&](const std::function<void(MemoryFiles&)>& how) {
    const auto files = whole.copy();
    how(*files);
    const Result<Checkpoint> loaded = CheckpointStore("/c", mine, *files).load(Version{5});
    return loaded.ok() ? std::string("loaded") : loaded.error().message;
  };
  EXPECT_THAT(damage([&](auto& files) { (void)files.remove(shard); }),
              HasSubstr("parameters.safetensors is missing"));
  EXPECT_THAT(damage([&](auto& files) { (void)files.remove(manifest); }),
              HasSubstr("manifest.json is missing"));
  EXPECT_THAT(damage([&](auto& files) { files.content(shard)->resize(99); }),
              HasSubstr("cut short: 99 bytes"));
  EXPECT_THAT(damage([&](auto& files) { *files.content(shard) += "x"; }), HasSubstr("too long"));
  EXPECT_THAT(damage([&](auto& files) { files.content(shard)->back() ^= 1; }),
              HasSubstr("damaged: its xxh3-128"));
  EXPECT_THAT(damage([&](auto& files) { *files.content(manifest) = "{}"; }),
              HasSubstr("checksum does not match"));
  EXPECT_THAT(damage([&](auto& files) {
                *files.content(shard) = *files.content("/c/00000006/parameters.safetensors");
              }),
              AllOf(HasSubstr("version is 6"), HasSubstr("this is 5")));
  EXPECT_THAT(damage([&](auto& files) {
                (void)remove_tree("/c/00000005", files);
                (void)files.rename("/c/00000006", "/c/00000005");
              }),
              HasSubstr("is of checkpoint 6"));
}

TEST(CheckpointStore, AnotherRunsOrModelsIsRefusedByName) {
  MemoryFiles files;
  const CheckpointIdentity other_run{{9, 9}, mine.model}, other_model{mine.job, {9, 9}};
  CheckpointStore store("/c", mine, files), theirs("/c", other_run, files), bigger("/c", other_model, files);
  ASSERT_TRUE(write(store, 5).ok());
  EXPECT_THAT(theirs.load(Version{5}).error().message, HasSubstr("another run: job \"" + mine.job.hex()));
  EXPECT_THAT(bigger.load(Version{5}).error().message, HasSubstr("another model"));
  EXPECT_EQ(bigger.load(Version{5}).error().code, ExitCode::refused_recipe);
  EXPECT_EQ(write(theirs, 5).error().code, ExitCode::refused_recipe) << "never replaced";
  MemoryFiles elsewhere;
  CheckpointStore foreign("/c", other_run, elsewhere);
  ASSERT_TRUE(write(foreign, 5).ok());
  const Path shard = "/c/00000005/parameters.safetensors";
  *files.content(shard) = *elsewhere.content(shard);
  EXPECT_THAT(store.load(Version{5}).error().message,
              AllOf(HasSubstr("its job is"), HasSubstr(other_run.job.hex())));
}

TEST(CheckpointStore, EveryFlippedBitIsDetected) {
  MemoryFiles files;
  CheckpointStore store("/c", mine, files);
  ASSERT_TRUE(write(store, 5).ok());
  std::size_t flips = 0;
  const auto entries = files.list_folder("/c/00000005");
  for (const FolderEntry& entry : *entries) {
    std::string& content = *files.content("/c/00000005/" + entry.name);
    for (char& byte : content) {
      for (int bit = 0; bit < 8; ++bit) {
        byte ^= static_cast<char>(1 << bit);
        const Result<Checkpoint> loaded = store.load(Version{5});
        ASSERT_FALSE(loaded.ok()) << entry.name << " byte " << &byte - content.data() << " bit " << bit;
        ASSERT_THAT(loaded.error().message, HasSubstr(entry.name));
        byte ^= static_cast<char>(1 << bit);
        ++flips;
      }
    }
    for (std::size_t size = 0; size < content.size(); ++size) {
      const std::string whole = content;
      content.resize(size);
      ASSERT_FALSE(store.load(Version{5}).ok()) << entry.name << " cut to " << size;
      content = whole;
    }
  }
  expect_is(store.load(Version{5}).value(), 5);
  std::cout << flips << " flipped bits detected\n";
}

/// Changes a manifest and makes its checksum right again, as only an enemy or a future version would.
std::string load_with(const std::string& what, const std::string& instead) {
  MemoryFiles files;
  CheckpointStore store("/c", mine, files);
  EXPECT_TRUE(store.write(Version{5}, {{"a", tensors_of(5)}}, "{}", Durability::process).ok());
  std::string& text = *files.content("/c/00000005/manifest.json");
  text.resize(text.rfind(",\n \"xxh3_128\""));
  const std::size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << text;
  if (at != std::string::npos) text.replace(at, what.size(), instead);
  text += ",\n \"xxh3_128\": \"" + digest_of(text).hex() + "\"\n}\n";
  const Result<Checkpoint> loaded = store.load(Version{5});
  return loaded.ok() ? "loaded" : loaded.error().message;
}

TEST(CheckpointStore, AnUglyManifestIsRefusedEvenWithARightChecksum) {
  EXPECT_EQ(load_with("\"a\"", "\"a\""), "loaded");
  EXPECT_THAT(load_with("\"a\"", "\"../a\""), HasSubstr("no sane name"));
  EXPECT_THAT(load_with("\"a\"", "7"), HasSubstr("is no manifest"));
  EXPECT_THAT(load_with("\"a\"", "\"b\""), HasSubstr("b.safetensors is missing"));
  EXPECT_THAT(load_with("\"size\": ", "\"size\": -"), HasSubstr("a.safetensors"));
  EXPECT_THAT(load_with("\"shards\": [", "\"shards\": [[],"), HasSubstr("is no manifest"));
  EXPECT_THAT(load_with("checkpoint-1", "checkpoint-2"), HasSubstr("this build reads tessera-checkpoint-1"));
  EXPECT_THAT(load_with("\"format\"", "\"form\""), HasSubstr("is no manifest"));
  for (const char* name : {"", ".hidden", "../x", "a/b", "A", "a b", "\xc3\xa4"})
    EXPECT_FALSE(is_shard_name(name)) << name;
  EXPECT_FALSE(is_shard_name(std::string(129, 'a')));
  EXPECT_TRUE(is_shard_name("slot-00.state_1"));
}

/// What happens to a run directory in the crash tests: three checkpoints, the second in place of a damaged
/// one.
struct Story {
  std::int64_t acknowledged = 0;
  void run(FileSystem& files) {
    CheckpointStore store("/run/c", mine, files);
    for (std::int64_t version : {1, 2, 3}) {
      if (write(store, version).ok()) acknowledged = version;
      (void)store.keep_newest(1);
    }
  }
};

class StartedRun {
 public:
  StartedRun() {
    (void)files.make_folder("/run/c");
    (void)CheckpointStore("/run/c", mine, files).write(Version{2}, shards_of(2), "{}", Durability::machine);
    files.content("/run/c/00000002/parameters.safetensors")->back() ^= 1;
    files.settle();
  }
  MemoryFiles files;
};

void expect_old_or_new(FileSystem& files, const Story& story, std::uint64_t operation) {
  CheckpointStore store("/run/c", mine, files);
  const auto newest = store.newest_complete();
  if (!newest.checkpoint) {
    ASSERT_EQ(story.acknowledged, 0) << "operation " << operation;
    return;
  }
  ASSERT_GE(newest.checkpoint->version.value, story.acknowledged) << "operation " << operation;
  ASSERT_LE(newest.checkpoint->version.value, story.acknowledged + 1) << "operation " << operation;
  expect_is(*newest.checkpoint, newest.checkpoint->version.value);
}

TEST(CheckpointStore, ACrashAtAnyOperationLeavesTheOldOrTheNewOne) {
  constexpr std::uint64_t seed = 23;
  SCOPED_TRACE(seed);
  KeyedRandom random(seed);
  int states = 0;
  bool crashed = true;
  for (std::uint64_t k = 1; crashed; ++k) {
    StartedRun at_crash;
    at_crash.files.crash_at = k;
    Story story;
    crashed = false;
    try {
      story.run(at_crash.files);
    } catch (const Crash&) {
      crashed = true;
    }
    for (int variant = 0; variant < 200; ++variant) {
      const auto files = at_crash.files.copy();
      const auto loss = variant == 0   ? MemoryFiles::Loss::nothing
                        : variant == 1 ? MemoryFiles::Loss::unsynced
                                       : MemoryFiles::Loss::random;
      files->restart(loss, random);
      expect_old_or_new(*files, story, k);
      if (HasFatalFailure()) return;
      if (variant < 10) {  // and the run goes on from there
        Story rest;
        rest.run(*files);
        EXPECT_EQ(rest.acknowledged, 3);
        CheckpointStore store("/run/c", mine, *files);
        expect_is(*store.newest_complete().checkpoint, 3);
        EXPECT_THAT(versions_in(store), ElementsAre(3));
      }
      ++states;
    }
  }
  std::cout << "seed " << seed << ": " << states << " crash states of checkpoints recovered\n";
  EXPECT_GT(states, 5000);
}

TEST(CheckpointStore, TheVeryFirstSurvivesAPowerCut) {
  KeyedRandom random(31);
  MemoryFiles files;
  ASSERT_TRUE(files.make_folder("/run").ok());
  files.settle();
  CheckpointStore store("/run/c", mine, files);
  ASSERT_TRUE(write(store, 1).ok());
  files.restart(MemoryFiles::Loss::unsynced, random);
  expect_is(*store.newest_complete().checkpoint, 1);
}

TEST(CheckpointStore, AFailureOfAnyOperationIsAnErrorThatLosesNothing) {
  StartedRun counting;
  Story().run(counting.files);
  const std::uint64_t operations = counting.files.operations();
  for (std::uint64_t k = 1; k <= operations; ++k) {
    StartedRun run;
    CheckpointStore store("/run/c", mine, run.files);
    ASSERT_TRUE(write(store, 1).ok());
    run.files.settle();
    run.files.fail_at = k;
    Story story;
    story.run(run.files);
    const auto newest = store.newest_complete();
    ASSERT_TRUE(newest.checkpoint.has_value()) << "operation " << k;
    ASSERT_GE(newest.checkpoint->version.value, story.acknowledged);
    expect_is(*newest.checkpoint, newest.checkpoint->version.value);
  }
}

std::vector<std::string> names_in(const Path& folder) {
  std::vector<std::string> names;
  const auto entries = list_folder(folder);
  for (const FolderEntry& entry : *entries) names.push_back(entry.name);
  return names;
}

TEST(CheckpointStore, AFileSizeLimitLeavesTheOldCheckpointAndNoTmp) {
  ScratchFolder scratch;
  CheckpointStore store(scratch.path(), mine);
  ASSERT_TRUE(write(store, 1).ok());
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{8192, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const Status written = store.write(Version{2}, shards_of(2, 5000), "{}", Durability::machine);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, ignored);
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().code, ExitCode::storage);
  EXPECT_THAT(written.error().message, AllOf(HasSubstr("checkpoint 2 was not written"), HasSubstr("EFBIG")));
  EXPECT_THAT(names_in(scratch.path()), ElementsAre("00000001"));
  expect_is(*store.newest_complete().checkpoint, 1);
}

/// In a child with a mount namespace of its own: 0 as it should be, 77 where mounting is not allowed, else a
/// failure.
int fill_small_disk(const Path& folder) {
  if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=1m") != 0) {
    return 77;
  }
  CheckpointStore store(folder / "c", mine);
  if (!write(store, 1).ok()) return 1;
  const Status full = store.write(Version{2}, shards_of(2, 400000), "{}", Durability::machine);
  if (full.ok() || full.error().code != ExitCode::storage) return 2;
  if (full.error().message.find("disk full (ENOSPC)") == std::string::npos) return 3;
  if (names_in(folder / "c") != std::vector<std::string>{"00000001"}) return 4;
  const auto newest = store.newest_complete();
  if (!newest.checkpoint || newest.checkpoint->version != Version{1}) return 5;
  return write(store, 2).ok() ? 0 : 6;  // with room again, it goes on
}

TEST(CheckpointStore, AFullDiskLeavesTheOldCheckpointAndNoTmp) {
  ScratchFolder scratch;
  const pid_t child = ::fork();
  if (child == 0) ::_exit(fill_small_disk(scratch.path()));
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "mounting a tmpfs needs root";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace tessera
