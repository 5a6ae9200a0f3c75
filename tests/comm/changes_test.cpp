#include "comm/changes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/random.h"
#include "base/set_numbers.h"
#include "comm/storage/safetensors.h"

namespace tessera {
namespace {

Wire wire(const std::string& codec, double feedback = 0) {
  if (codec == "sparseloco") {  // as the method encodes
    const auto settings = Registry<Codec>::builtin().make_settings("topk");
    set_numbers(*settings, {{"density", 64.0 / 4096}, {"chunk", 4096}, {"value_bits", 2}});
    return {Registry<Codec>::builtin().make("topk", *settings, {}), feedback};
  }
  return {Registry<Codec>::builtin().make(codec, {}), feedback};
}
std::vector<float> normal(std::size_t count, std::uint64_t seed, double scale) {
  KeyedRandom random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(scale * random.normal());
  return values;
}
HostTensor tensor(std::vector<std::int64_t> shape, std::uint64_t seed, double scale = 0.02) {
  std::size_t elements = 1;
  for (std::int64_t dimension : shape) elements *= static_cast<std::size_t>(dimension);
  return HostTensor::of(DType::f32, std::move(shape), normal(elements, seed, scale));
}
std::vector<float> floats(const HostTensor& t) {
  return {t.as<float>().begin(), t.as<float>().end()};
}

TEST(Changes, WithErrorFeedbackWhatWasSentAndWhatIsKeptIsWhatWasToBeSent) {
  std::vector<std::string> names = Registry<Codec>::builtin().names();
  names.push_back("sparseloco");
  for (const std::string& name : names) {
    if (name == "fp32") continue;
    SCOPED_TRACE(name);
    constexpr std::size_t count = 1000;
    const Wire way = wire(name, 1);
    std::vector<float> residual(count);
    std::vector<double> wanted(count), sent(count);
    for (std::uint64_t round = 0; round < 20; ++round) {
      std::vector<float> change = normal(count, round, 1e-3);
      for (std::size_t i = 0; i < count; ++i) wanted[i] += static_cast<double>(change[i]);
      std::vector<float> x = change;
      for (std::size_t i = 0; i < count; ++i) x[i] += residual[i];
      const HostTensor encoded = encode_change(way, change, residual);
      std::vector<float> decoded(count);
      ASSERT_TRUE(decode_change(*way.codec, "w", encoded, decoded).ok());
      for (std::size_t i = 0; i < count; ++i) {
        sent[i] += static_cast<double>(decoded[i]);
        ASSERT_EQ(decoded[i], change[i]) << "the sender knows what arrives";
        ASSERT_EQ(residual[i], x[i] - decoded[i]);
        ASSERT_NEAR(sent[i] + static_cast<double>(residual[i]), wanted[i], 1e-7) << i;
      }
    }
  }
}

TEST(Changes, AShareOfTheResidualIsKept) {
  std::vector<float> change{1, 0.6f}, residual{0.5f, -1};
  encode_change(wire("topk", 0.5), change, residual);  // one of two: the first
  EXPECT_EQ(change, (std::vector<float>{1.25f, 0}));
  EXPECT_EQ(residual, (std::vector<float>{0, 0.1f + (0.6f - 0.5f - 0.1f)}));
  std::vector<float> alone{1, 0.6f};
  encode_change(wire("topk"), alone, {});
  EXPECT_EQ(alone, (std::vector<float>{1, 0}));
}

/// The same change every round, as a steady gradient is: with feedback the sum of what arrives stays near the
/// sum of what was meant, without it the error of one round is there in every one.
TEST(Changes, ErrorFeedbackKeepsASteadyChangeWhole) {
  const auto distance = [](const Wire& way) {
    constexpr std::size_t count = 512, rounds = 100;
    const std::vector<float> steady = normal(count, 1, 1);
    std::vector<float> residual(way.keeps_residual() ? count : 0);
    std::vector<double> missing(count);
    for (std::size_t round = 0; round < rounds; ++round) {
      std::vector<float> change = steady;
      encode_change(way, change, residual);
      for (std::size_t i = 0; i < count; ++i)
        missing[i] += static_cast<double>(steady[i]) - static_cast<double>(change[i]);
    }
    double square = 0;
    for (double x : missing) square += x * x;
    return std::sqrt(square / count);
  };
  EXPECT_LT(distance(wire("int4", 1)), 1);
  EXPECT_LT(distance(wire("int2", 1)), 2);
  EXPECT_GT(distance(wire("int2")), 20);
  EXPECT_LT(distance(wire("topk", 1)), 20) << "a value waits for its turn";
  EXPECT_GT(distance(wire("topk")), 80);
}

TEST(Changes, PiecesOfASlotComeBackAsChangesOfTheirShapes) {
  const std::vector<ParamSpec> specs{{"a", {6, 5}}, {"a.b", {4}}, {"one", {}}};
  const TensorMap start{{"a", tensor({6, 5}, 1)}, {"a.b", tensor({4}, 2)}, {"one", tensor({}, 3)}};
  const RowSet owned{{"a", {{0, 2}, {3, 6}}}, {"a.b", {{0, 4}}}, {"one", {{0, 1}}}};
  TensorMap end;
  for (const auto& [name, ranges] : owned) {
    for (const Rows& rows : ranges) {
      const HostTensor& whole = start.at(name);
      HostTensor piece = (whole.shape.empty() ? whole : whole.rows(rows)).clone();
      for (float& value : piece.as<float>()) value -= 0.25f;
      end.emplace(piece_name(name, rows, whole.shape.empty() ? 1 : whole.shape[0]), piece);
    }
  }
  TensorMap residuals;
  TensorMap encoded = encode_pieces(wire("int8", 1), end, &start, residuals);
  EXPECT_EQ(residuals.size(), 4u);
  EXPECT_EQ(encoded.at("a[3:6]").dtype, DType::u8);
  encoded.emplace("moment.exp_avg/a[0:2]", tensor({2, 5}, 9));
  ASSERT_TRUE(decode_pieces(wire("int8", 1), owned, specs, encoded).ok());
  for (const auto& [name, piece] : end) {
    EXPECT_EQ(encoded.at(name).shape, piece.shape) << name;
    for (float value : encoded.at(name).as<float>()) EXPECT_NEAR(value, 0.25f, 1e-6) << name;
  }
  EXPECT_EQ(floats(encoded.at("moment.exp_avg/a[0:2]")), floats(tensor({2, 5}, 9))) << "left alone";
  TensorMap floats_instead = end;
  const Status refused = decode_pieces(wire("int8"), owned, specs, floats_instead);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, ::testing::HasSubstr("a[0:2] is not"));
}

class Updates : public ::testing::Test {
 protected:
  TensorMap base_{{"a", tensor({6, 50}, 1)}, {"b", tensor({70}, 2)}, {"buffer", tensor({2}, 3)}};
  TensorMap theta_{{"a", tensor({6, 50}, 4)}, {"b", tensor({70}, 5)}, {"buffer", tensor({2}, 6)}};
  RowSet rows_{{"a", {{0, 2}, {3, 6}}}, {"b", {{0, 70}}}};
  Buffer file(const TensorMap& tensors) const { return encode_safetensors(tensors); }
};

TEST_F(Updates, MakeTheVeryParametersOfTheSender) {
  for (const char* name : {"int8", "int2", "topk", "e3m0", "int8_sigma", "sparseloco"}) {
    SCOPED_TRACE(name);
    TensorMap theta,
        residuals{{"a", HostTensor::zeros(DType::f32, {6, 50})}, {"b", HostTensor::zeros(DType::f32, {70})}};
    for (const auto& [param, tensor] : theta_) theta.emplace(param, tensor.clone());
    TensorMap update = encode_update(wire(name, 1), rows_, base_, theta, residuals);
    update.emplace("buffer", theta.at("buffer"));
    update.emplace("moment.exp_avg/a", tensor({6, 50}, 8));
    TensorMap base = base_;
    base.emplace("moment.exp_avg/b", tensor({70}, 8));  // of the version before: gone
    const Result<Buffer> made = apply_update(wire(name, 1), file(base), file(update));
    ASSERT_TRUE(made.ok()) << made.error().message;
    theta.emplace("moment.exp_avg/a", tensor({6, 50}, 8));
    const auto rows_without_any = theta_.at("a").rows({2, 3}), kept = theta.at("a").rows({2, 3});
    EXPECT_EQ(floats(rows_without_any), floats(kept))
        << "rows that are not in the update are left alone here";
    std::ranges::copy(base_.at("a").rows({2, 3}).as<float>(), kept.as<float>().begin());
    const Buffer expected = file(theta);
    ASSERT_EQ(made->bytes.size(), expected.bytes.size());
    EXPECT_EQ(std::memcmp(made->bytes.data(), expected.bytes.data(), expected.bytes.size()), 0);
    for (std::size_t i = 0; i < 70; ++i) {  // theta = base + decoded, residual = wanted - decoded
      const float wanted = theta_.at("b").as<float>()[i];
      EXPECT_NEAR(theta.at("b").as<float>()[i] + residuals.at("b").as<float>()[i], wanted, 1e-7);
    }
  }
}

TEST_F(Updates, OfSomethingElseAreRefusedAndDamageNeverCrashes) {
  TensorMap residuals;
  const TensorMap update = encode_update(wire("int8"), rows_, base_, theta_, residuals);
  const auto refuse = [&](const std::string& from, const std::string& to) {
    TensorMap other = update;
    auto node = other.extract(from);
    node.key() = to;
    other.insert(std::move(node));
    EXPECT_FALSE(apply_update(wire("int8"), file(base_), file(other)).ok()) << to;
  };
  refuse("b", "c");
  refuse("a[0:2]", "a[0:3]");
  refuse("a[0:2]", "a[5:7]");
  refuse("a[0:2]", "a[2:0]");
  refuse("a[0:2]", "a[-1:1]");
  refuse("a[0:2]", "a[");
  const Buffer whole = file(update);
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    KeyedRandom random(seed);
    Buffer damaged = Buffer::copy_of(whole.bytes);
    damaged.bytes[random.below(damaged.bytes.size())] ^= static_cast<std::byte>(1 << random.below(8));
    (void)apply_update(wire("int8"), file(base_), damaged);
    (void)apply_update(wire("int8"), file(base_),
                       Buffer::copy_of(whole.bytes.first(random.below(whole.bytes.size()))));
  }
}

}  // namespace
}  // namespace tessera
