// `tessera inspect` and `tessera diff` on runs that are made here by hand.
#include "launch/stored.h"

#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "comm/storage/checkpoint_store.h"
#include "comm/storage/files.h"
#include "comm/storage/safetensors.h"
#include "tests/comm/scratch_folder.h"
#include "tests/launch/torch/command_fixture.h"

namespace tessera {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing_launch::tessera;

class Runs : public ::testing::Test {
 protected:
  /// A run of `rounds` rounds with a checkpoint after each; `change` is added to one weight from round `from`
  /// on.
  std::string make(const std::string& name, int rounds, int from = 99, float change = 0) {
    const std::filesystem::path run = folder_.path() / name;
    CheckpointStore store(run / "checkpoints", {.job = Digest{1, 2}, .model = Digest{3, 4}});
    EXPECT_TRUE(make_folder(run / "checkpoints").ok());
    std::ofstream metrics(run / "metrics.jsonl");
    for (int round = 1; round <= rounds; ++round) {
      const bool changed = round >= from;
      std::vector<float> weights{1, 2, 3, static_cast<float>(round), 5, 6};
      if (changed) weights[4] += change;
      const Shards shards = {
          {"parameters", TensorMap{{"a", HostTensor::of<float>(DType::f32, {2, 3}, weights)}}},
          {"slot-0", TensorMap{{"b/exp_avg", HostTensor::of<float>(DType::f32, {2}, {3, 4})}}}};
      EXPECT_TRUE(store.write(Version{round}, shards, "{\"note\": 1}", Durability::process).ok());
      metrics << nlohmann::json{{"round", round},
                                {"loss", 3.5},
                                {"state_hash", std::to_string(round) + (changed ? "x" : "")}}
              << "\n";
    }
    return run.string();
  }
  ScratchFolder folder_;
};

TEST_F(Runs, InspectShowsRoundsShardsAndTensors) {
  const std::string run = make("a", 3);
  const auto text = tessera({"inspect", run});
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(text.out, AllOf(HasSubstr("3 committed rounds, checkpoints of rounds 1, 2, 3"),
                              HasSubstr("all checksums good"), HasSubstr("[2, 3]"), HasSubstr("norm 5 ")));
  const nlohmann::json json = nlohmann::json::parse(tessera({"inspect", run, "--json", "--round", "2"}).out);
  EXPECT_EQ(json.at("rounds").size(), 3u);
  EXPECT_EQ(json.at("stored").at("version"), 2);
  EXPECT_EQ(json.at("stored").at("shards").at("slot-0").at("tensors").at(0).at("norm"), 5);
  EXPECT_EQ(json.at("stored").at("extra").at("note"), 1);
}

TEST_F(Runs, InspectTakesACheckpointFolderWithOrWithoutASlashAndALoneFile) {
  const std::string checkpoint = make("a", 1) + "/checkpoints/00000001";
  EXPECT_EQ(tessera({"inspect", checkpoint}).out, tessera({"inspect", checkpoint + "/"}).out);
  const auto file = tessera({"inspect", checkpoint + "/parameters.safetensors"});
  EXPECT_EQ(file.code, 0) << file.err;
  EXPECT_THAT(file.out, HasSubstr("1 tensors in 1 file"));
}

TEST_F(Runs, InspectRefusesAFlippedByteWithTheFilesName) {
  const std::string run = make("a", 2), shard = run + "/checkpoints/00000002/parameters.safetensors";
  std::fstream file(shard, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-1, std::ios::end);
  const char last = static_cast<char>(file.get());
  file.seekp(-1, std::ios::end);
  file.put(static_cast<char>(last ^ 1));
  file.close();
  const auto outcome = tessera({"inspect", run});
  EXPECT_EQ(outcome.code, 74);
  EXPECT_THAT(outcome.err, HasSubstr("parameters"));
  EXPECT_EQ(tessera({"inspect", run, "--round", "1"}).code, 0);
}

TEST_F(Runs, DiffFindsRoundShardTensorAndElement) {
  const std::string a = make("a", 4), same = make("b", 4), other = make("c", 4, 3, 0.5),
                    longer = make("d", 5);
  const auto equal = tessera({"diff", a, same});
  EXPECT_EQ(equal.code, 0) << equal.err;
  EXPECT_THAT(equal.out, HasSubstr("All 4 rounds have equal state hashes"));
  const auto different = tessera({"diff", a, other});
  EXPECT_EQ(different.code, 1);
  EXPECT_THAT(
      different.out,
      AllOf(
          HasSubstr("First differing round: 3"), HasSubstr("00000003"),
          HasSubstr("parameters: a: 1 of 6 elements, first [1, 1]: 5 against 5.5; largest difference 0.5")));
  EXPECT_THAT(different.out, ::testing::Not(HasSubstr("slot-0")));
  const auto goes_on = tessera({"diff", a, longer});
  EXPECT_EQ(goes_on.code, 1);
  EXPECT_THAT(goes_on.out,
              HasSubstr("The first 4 rounds have equal state hashes; the second run goes on to round 5"));
}

TEST_F(Runs, DiffComparesCheckpointsAndFilesToo) {
  const std::string a = make("a", 2) + "/checkpoints/", c = make("c", 2, 2, 1) + "/checkpoints/";
  EXPECT_EQ(tessera({"diff", a + "00000001", c + "00000001"}).code, 0);
  EXPECT_EQ(tessera({"diff", a + "00000002", c + "00000002"}).code, 1);
  EXPECT_EQ(
      tessera({"diff", a + "00000001/parameters.safetensors", a + "00000002/parameters.safetensors"}).code,
      1);
  EXPECT_EQ(tessera({"diff", a, "/nowhere"}).code, 2);
}

TEST(Stored, ElementsOfEveryTypeReadAsNumbers) {
  EXPECT_EQ(element(HostTensor::of<float>(DType::f32, {1}, {-1.5f}), 0), -1.5);
  EXPECT_EQ(element(HostTensor::of<std::int64_t>(DType::i64, {2}, {7, -9}), 1), -9);
  EXPECT_EQ(element(HostTensor::of<std::uint16_t>(DType::bf16, {1}, {0xbfc0}), 0), -1.5);
  EXPECT_EQ(element(HostTensor::of<std::uint16_t>(DType::f16, {1}, {0xbe00}), 0), -1.5);
  EXPECT_EQ(element(HostTensor::of<std::uint16_t>(DType::f16, {1}, {0x0001}), 0), std::ldexp(1.0, -24));
}

}  // namespace
}  // namespace tessera
