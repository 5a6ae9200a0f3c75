// Contributions that came through shared memory stay there: found again by the next coordinator, handed back
// when they are merged, and written to the run directory before that memory goes.
#include "coordinator/run_store.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "comm/storage/files.h"
#include "comm/transport/bulk_shared.h"
#include "tests/comm/transport_fixtures.h"

namespace tessera {
namespace {

using test::random_blob;
using test::TemporaryFolder;

class Staging : public testing::Test {
 protected:
  TemporaryFolder run_{"/tmp"}, shared_;
  std::unique_ptr<SharedFolder> worker_ = SharedFolder::open(shared_.path()).value(),
                                coordinator_ = SharedFolder::open(shared_.path()).value();
  Blob blob_ = random_blob(5000, 1);

  std::unique_ptr<RunStore> open(Durability durability = Durability::process) const {
    RunStoreSettings settings;
    settings.run = run_.path();
    settings.durability = durability;
    settings.shared = shared_.path();
    EXPECT_TRUE(make_folder(settings.run).ok());
    auto store = RunStore::open(settings);
    EXPECT_TRUE(store.ok()) << (store.ok() ? "" : store.error().message);
    return *std::move(store);
  }
  /// The blob as the coordinator has it of a worker that has withdrawn it since.
  Buffer received() {
    const BlobRef ref{blob_.digest, blob_.bytes().size(), worker_->publish(blob_).value()};
    Buffer held = coordinator_->hold(ref).value();
    return held;
  }
  std::string kept() const { return shared_.path() + "/" + kept_name(blob_.digest); }
  std::string written() const { return run_.path() + "/log/staged/" + blob_.digest.hex() + ".safetensors"; }
  void stage(RunStore& store) {
    Buffer held = received();
    ASSERT_TRUE(store.stage(blob_.digest, held.bytes, coordinator_->path_of(held)).ok());
    worker_->remove(blob_.digest);
  }
  std::size_t spares() const {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(shared_.path()))
      count += entry.path().filename().string().starts_with("spare-") ? 1 : 0;
    return count;
  }
  void expect_there(const RunStore& store) const {
    const auto bytes = store.staged(blob_.digest);
    ASSERT_TRUE(bytes.ok()) << bytes.error().message;
    EXPECT_EQ(digest_of(Bytes(bytes->bytes)), blob_.digest);
  }
};

TEST_F(Staging, StaysInSharedMemoryAndIsHandedBackWhenItIsMerged) {
  auto store = open();
  stage(*store);
  EXPECT_FALSE(std::filesystem::exists(written()));
  expect_there(*store);
  ASSERT_TRUE(store->discard(blob_.digest).ok());
  EXPECT_FALSE(store->staged(blob_.digest).ok());
  EXPECT_EQ(spares(), 1u);
  const Buffer next = worker_->allocate(blob_.bytes().size()).value();
  EXPECT_EQ(spares(), 0u);
}

TEST_F(Staging, TheNextCoordinatorFindsItAndDropsWhatNobodyWants) {
  { stage(*open()); }
  coordinator_.reset();
  coordinator_ = SharedFolder::open(shared_.path()).value();
  auto store = open();
  ASSERT_TRUE(store->discard_all_but({blob_.digest}).ok());
  expect_there(*store);
  { std::fstream(kept(), std::ios::in | std::ios::out | std::ios::binary).seekp(77).put('?').put('!'); }
  EXPECT_FALSE(store->staged(blob_.digest).ok()) << "damaged";
  ASSERT_TRUE(store->discard_all_but({}).ok());
  EXPECT_FALSE(std::filesystem::exists(kept()));
  EXPECT_EQ(spares(), 1u);
}

TEST_F(Staging, SettlingWritesItBeforeTheMemoryGoes) {
  auto store = open();
  stage(*store);
  ASSERT_TRUE(store->settle({blob_.digest}).ok());
  EXPECT_FALSE(std::filesystem::exists(kept()));
  remove_shared_folder(shared_.path(), true);
  EXPECT_FALSE(std::filesystem::exists(shared_.path()));
  store.reset();
  expect_there(*open());
}

TEST_F(Staging, WhatMustOutlastTheMachineIsWritten) {
  auto store = open(Durability::machine);
  stage(*store);
  EXPECT_FALSE(std::filesystem::exists(kept()));
  EXPECT_TRUE(std::filesystem::exists(written()));
  expect_there(*store);
}

TEST_F(Staging, WhatLiesElsewhereIsWritten) {
  auto store = open();
  for (const Path& path : {Path(), Path(shared_.path() + "/not-there"), Path("/proc/self/exe")}) {
    ASSERT_TRUE(store->stage(blob_.digest, blob_.bytes(), path).ok()) << path;
    EXPECT_TRUE(std::filesystem::exists(written())) << path;
    expect_there(*store);
    ASSERT_TRUE(store->discard(blob_.digest).ok());
  }
}

}  // namespace
}  // namespace tessera
