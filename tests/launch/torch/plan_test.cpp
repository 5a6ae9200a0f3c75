// `tessera plan` against numbers worked out by hand, for a shape small enough to do so.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "tests/launch/torch/command_fixture.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;
using testing_launch::tessera;

// width 4, 1 layer, 2 heads, ffn 16, vocabulary 8, context 4, tied head, learned positions, no biases:
//   embed.tokens 8x4 = 32, embed.positions 4x4 = 16, norms 3x4 = 12, attention 4x(4x4) = 64, MLP 2x(16x4) =
//   128: P = 252 P_m = 64 + 128 + 32 (head) = 224, attention width A = 4
std::vector<std::string> tiny(std::vector<std::string> more) {
  std::vector<std::string> arguments = {"plan", TESSERA_SOURCE_DIR "/recipes/tiny.toml"};
  for (const char* set : {"model.width=4", "model.layers=1", "model.heads=2", "model.ffn=16", "model.vocab=8",
                          "model.context=4", "slots=4", "batch=2", "sync.steps=3"}) {
    arguments.insert(arguments.end(), {"--set", set});
  }
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(Plan, JsonHasTheNumbersOfTheFormulas) {
  const auto outcome = tessera(tiny({"--json"}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json json = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(json.at("parameters"), 252);
  // Two slices of the MLP: each slot trains 252 - 64 = 188 parameters.
  EXPECT_NEAR(json.at("trainable_share"), 188.0 / 252, 1e-12);
  // Per token: F = 2*224 + 2*4*4 = 480, A = 2*224 + 4*4*4 = 512, W = 448; the cut saves 2*64.
  EXPECT_NEAR(json.at("flops_saved"), 128.0 / (480 + 512 + 448), 1e-12);
  ASSERT_EQ(json.at("slots").size(), 4u);
  for (const auto& slot : json.at("slots")) {
    EXPECT_EQ(slot.at("parameters"), 188);
    EXPECT_EQ(slot.at("bytes_up"), 4 * 188);
    EXPECT_EQ(slot.at("bytes_down"), 4 * 252);
    EXPECT_EQ(slot.at("static_bytes"), 4 * 252 + 16 * 188)
        << "weights of all; gradient, two moments and anchor of the owned";
    EXPECT_EQ(slot.at("flops_per_step"), (480 + 512 + 448 - 128) * 8) << "2 sequences of 4 tokens";
    EXPECT_EQ(slot.at("weight_bytes"), 4 * 252);
    EXPECT_EQ(slot.at("gradient_bytes"), 4 * 188);
    EXPECT_EQ(slot.at("moment_bytes"), 8 * 188);
    EXPECT_EQ(slot.at("anchor_bytes"), 4 * 188);
    EXPECT_EQ(slot.at("received_bytes"), 4 * 252);
    EXPECT_GT(slot.at("peak_bytes"), 4 * 252 + 12 * 188);
    EXPECT_LT(slot.at("peak_bytes"), json.at("diloco").at("peak_bytes"));
    EXPECT_LT(slot.at("activation_bytes"), json.at("diloco").at("activation_bytes"));
  }
  EXPECT_EQ(json.at("diloco").at("flops_per_step"), (480 + 512 + 448) * 8);
  const double peak = json.at("slots").at(0).at("peak_bytes"), diloco = json.at("diloco").at("peak_bytes");
  EXPECT_DOUBLE_EQ(json.at("peak_saved"), 1 - peak / diloco);
}

TEST(Plan, SaysWhatTravelsInOneMergeWhereSlicesAreStaggered) {
  const auto outcome = tessera(tiny({"--json", "--set", "outer.name=streaming", "--set", "outer.fragments=2",
                                     "--set", "outer.pattern=slices", "--set", "partial.slices=2"}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json json = nlohmann::json::parse(outcome.out);
  // 252 parameters, of which the two slices have 64 each; of the other 124, seven are vectors of four: 64 in
  // the first merge, 60 in the second.
  for (std::size_t k = 0; k < 4; ++k) {
    const auto& slot = json.at("slots").at(k);
    EXPECT_EQ(slot.at("bytes_up"), 4 * 188);
    EXPECT_EQ(slot.at("bytes_down_in_one_merge"), 4 * (64 + 64));
    EXPECT_EQ(slot.at("bytes_up_in_one_merge"), 4 * (64 + (k % 2 == 0 ? 64 : 60)));
  }
  EXPECT_EQ(json.at("bytes_up_in_one_merge"), 4 * (4 * 64 + 2 * 64)) << "two slots own the slice";
}

/// 80 layers 8192 wide, with 8 key/value heads: shapes of 70 thousand million parameters, of which none
/// exists.
TEST(Plan, OfAModelThatFitsOnNoMachineTakesNoMemoryAndNoTime) {
  const auto high_water = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;  // KiB
  };
  tessera(tiny({"--json"}));
  const long before = high_water();
  const auto begin = std::chrono::steady_clock::now();
  const auto outcome = tessera(tiny({"--json",
                                     "--set",
                                     "model.width=8192",
                                     "--set",
                                     "model.layers=80",
                                     "--set",
                                     "model.heads=64",
                                     "--set",
                                     "model.kv_heads=8",
                                     "--set",
                                     "model.ffn=28672",
                                     "--set",
                                     "model.vocab=128256",
                                     "--set",
                                     "model.context=131072",
                                     "--set",
                                     "model.activation=swiglu",
                                     "--set",
                                     "model.norm=rmsnorm",
                                     "--set",
                                     "model.positions=rotary",
                                     "--set",
                                     "model.tied=false",
                                     "--set",
                                     "partial.cut=mlp+heads",
                                     "--set",
                                     "partial.slices=4"}));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json json = nlohmann::json::parse(outcome.out);
  EXPECT_NEAR(json.at("parameters").get<double>(), 70.5e9, 0.1e9);
  EXPECT_GT(json.at("slots").at(0).at("peak_bytes"), 400e9);
  EXPECT_LT(took.count(), 1) << "seconds";
  EXPECT_LT(high_water() - before, 64 << 10) << "KiB";
}

TEST(Plan, WithoutACutNothingIsSaved) {
  const nlohmann::json json = nlohmann::json::parse(
      tessera(tiny({"--json", "--set", "partial.cut=none", "--set", "partial.slices=1"})).out);
  EXPECT_EQ(json.at("trainable_share"), 1);
  EXPECT_EQ(json.at("flops_saved"), 0);
}

TEST(Plan, SaysItInWordsAndPredictsWhenAsked) {
  const auto outcome = tessera(tiny({"--gflops", "10", "--mbits", "100"}));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, ::testing::AllOf(HasSubstr("252 parameters"), HasSubstr("slots 0, 2"),
                                            HasSubstr("mlp/units[0:8]"), HasSubstr("DiLoCo"),
                                            HasSubstr("Predicted at 10 GFLOP/s")));
}

TEST(Plan, PredictsWhatTheSimulatorDoes) {
  const nlohmann::json plan =
      nlohmann::json::parse(tessera(tiny({"--json", "--gflops", "10", "--mbits", "100"})).out);
  std::vector<std::string> arguments =
      tiny({"--json", "--gflops", "10", "--bandwidth", "100M", "--method", "recipe"});
  arguments.front() = "simulate";
  const auto outcome = tessera(arguments);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json row = nlohmann::json::parse(outcome.out).at(0);
  EXPECT_EQ(plan.at("round").at("compute_utilisation"), row.at("compute_utilisation"));
  // 3 steps of 8 tokens at 1440 - 128 operations; 188 parameters up, 252 down.
  const double compute = 3 * 8 * (480 + 512 + 448 - 128) / 10e9, sync = 4 * 8 * (188 + 252) / 100e6;
  EXPECT_NEAR(row.at("compute_utilisation"), compute / (compute + sync), 1e-9);
}

TEST(Simulate, NamesWhatIsWrongAndEndsWith2) {
  for (const auto& [arguments, sentence] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"--method", "dilocp"}, "did you mean diloco?"},
           {{"--bandwidth", "fast"}, "\"fast\" is no number"},
           {{"--model", "2B"}, "PARAMETERS:LAYERS:SECONDS"},
           {{"--codec", "morse"}, "names no number of bits"},
           {{"--workers", "0"}, "at least 1"},
           {{"--table", "alexnet"}, "alexnet"}}) {
    std::vector<std::string> all = {"simulate"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const auto outcome = tessera(all);
    EXPECT_EQ(outcome.code, 2) << sentence;
    EXPECT_THAT(outcome.err, HasSubstr(sentence));
  }
}

TEST(Plan, SaysHowTheCutIsDealt) {
  const auto uneven = tessera(tiny({"--set", "partial.slices=3", "--set", "partial.rotate_every=2", "--set",
                                    "partial.frozen=[\"embed.*\"]"}));
  EXPECT_EQ(uneven.code, 0) << uneven.err;
  EXPECT_THAT(uneven.out,
              ::testing::AllOf(HasSubstr("slots pass on to the next slice every 2 rounds (6 for all"),
                               HasSubstr("partial.frozen"), HasSubstr("3 slices of 5 to 6 units")));
  const nlohmann::json json = nlohmann::json::parse(
      tessera(tiny({"--json", "--set", "partial.cut=tensor", "--set", "partial.frozen=[\"embed.*\"]"})).out);
  EXPECT_EQ(json.at("frozen_parameters"), 48);
  EXPECT_EQ(json.at("parameters"), 252 - 48);
  // Matrices 64, 64, 16, 16, 16, 16 in two parts of 96; norms belong to all.
  for (const auto& slot : json.at("slots")) {
    EXPECT_EQ(slot.at("parameters"), 96 + 12);
    EXPECT_EQ(slot.at("static_bytes"), 4 * 252 + 16 * (96 + 12));
    EXPECT_EQ(slot.at("flops_per_step"), (480 + 512 + 2 * (224 - 96 - 32)) * 8) << "positions are no matmul";
  }
}

TEST(Plan, NamesWhatDoesNotFit) {
  const auto slices = tessera(tiny({"--set", "partial.slices=17", "--set", "slots=17"}));
  EXPECT_EQ(slices.code, 2);
  EXPECT_THAT(slices.err, HasSubstr("partial.slices = 17 is more than the 16 units of blocks.0.mlp"));
  const auto heads = tessera(tiny({"--set", "model.heads=3"}));
  EXPECT_EQ(heads.code, 2);
  EXPECT_THAT(heads.err, HasSubstr("--set model.heads: model.heads = 3 does not divide model.width = 4"));
  EXPECT_EQ(tessera(tiny({"--slots", "1"})).code, 2) << "more slices than slots";
}

}  // namespace
}  // namespace tessera
