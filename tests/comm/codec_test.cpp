#include "comm/codec.h"

#include <gtest/gtest.h>
#include <tessera_plugins/codecs.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "base/random.h"

namespace tessera {
namespace {

std::vector<float> awkward_floats() {
  using limits = std::numeric_limits<float>;
  std::vector<float> values = {
      0.f, -0.f, limits::denorm_min(), limits::max(), limits::infinity(), -limits::infinity()};
  const std::uint32_t signalling_nan = 0x7f800001;
  values.emplace_back();
  std::memcpy(&values.back(), &signalling_nan, 4);
  KeyedRandom random(5);
  while (values.size() < 1000) values.push_back(static_cast<float>(random.normal()));
  return values;
}

TEST(Codec, EveryFileOfTheFolderIsRegisteredUnderItsStem) {
  std::vector<std::string> stems(std::begin(plugins::codecs), std::end(plugins::codecs));
  std::sort(stems.begin(), stems.end());
  EXPECT_EQ(stems, Registry<Codec>::builtin().names());
}

std::vector<float> normal_floats(std::size_t count, std::uint64_t seed, double scale = 1e-3) {
  KeyedRandom random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(scale * random.normal());
  return values;
}

std::vector<float> round_trip(const Codec& codec, const std::vector<float>& values) {
  std::vector<float> decoded(values.size(), 77.0f);
  const Status status = codec.decode(codec.encode(values).bytes, decoded);
  EXPECT_TRUE(status.ok());
  return decoded;
}

/// Runs `check(codec)` for every codec of the folder.
template <class Check>
void for_each_codec(Check check) {
  for (const std::string& name : Registry<Codec>::builtin().names()) {
    SCOPED_TRACE(name);
    check(name, *Registry<Codec>::builtin().make(name, {}));
  }
}

TEST(Codec, EveryCodecKeepsItsSizesAndRefusesWrongOnes) {
  for_each_codec([](const std::string& name, const Codec& codec) {
    for (std::size_t count : {0, 1, 2, 3, 7, 255, 256, 257, 1000, 65535, 65536, 70001}) {
      const std::vector<float> values = normal_floats(count, 1);
      const Buffer encoded = codec.encode(values);
      EXPECT_EQ(encoded.bytes.size(), codec.encoded_bytes(count));
      std::vector<float> decoded(count);
      EXPECT_TRUE(codec.decode(encoded.bytes, decoded).ok());
      std::vector<float> more(count + 64);
      const Status refused = codec.decode(encoded.bytes, more);
      ASSERT_FALSE(refused.ok());
      EXPECT_NE(refused.error().message.find(name), std::string::npos);
      if (count > 0) {
        EXPECT_FALSE(codec.decode(Bytes(encoded.bytes).first(encoded.bytes.size() - 1), decoded).ok());
      }
    }
  });
}

TEST(Codec, TheBytesAreAFunctionOfTheValuesAndMayLieAnywhere) {
  for_each_codec([](const std::string&, const Codec& codec) {
    const std::vector<float> values = normal_floats(777, 3);
    const Buffer encoded = codec.encode(values);
    const std::vector<float> expected = round_trip(codec, values);
    for (std::size_t shift : {1, 2, 3, 5}) {
      std::vector<std::byte> room(encoded.bytes.size() + shift, std::byte{0xee});
      const MutableBytes odd = MutableBytes(room).subspan(shift);
      codec.encode(values, odd);
      EXPECT_EQ(std::memcmp(odd.data(), encoded.bytes.data(), odd.size()), 0);
      std::vector<float> decoded(values.size());
      ASSERT_TRUE(codec.decode(odd, decoded).ok());
      EXPECT_EQ(decoded, expected);
    }
  });
}

TEST(Codec, ZerosStayZero) {
  for_each_codec([](const std::string&, const Codec& codec) {
    for (std::size_t count : {1, 300, 1001}) {
      const std::vector<float> zeros(count, 0.0f);
      EXPECT_EQ(round_trip(codec, zeros), zeros);
    }
  });
}

TEST(Codec, DenormalsDoNotComeBackLarger) {
  const float least = std::numeric_limits<float>::denorm_min();
  for_each_codec([&](const std::string&, const Codec& codec) {
    std::vector<float> values(300, 0.0f);
    for (std::size_t i = 0; i < values.size(); i += 3) values[i] = least * static_cast<float>(i);
    for (float decoded : round_trip(codec, values)) EXPECT_LE(std::abs(decoded), 0x1p-100f);
  });
}

TEST(Codec, WhatIsNotFiniteIsFoundByTheReceiver) {
  using limits = std::numeric_limits<float>;
  for (float bad : {limits::quiet_NaN(), limits::infinity(), -limits::infinity()}) {
    for_each_codec([&](const std::string&, const Codec& codec) {
      for (std::size_t count : {1, 10, 1000}) {
        for (std::size_t at : {std::size_t{0}, count / 2, count - 1}) {
          std::vector<float> values = normal_floats(count, 4);
          values[at] = bad;
          const std::vector<float> decoded = round_trip(codec, values);
          EXPECT_FALSE(std::isfinite(decoded[at])) << bad << " at " << at << " of " << count;
        }
      }
    });
  }
}

/// Decoded values never come from outside: whatever the bytes are, decode() gives a value or a refusal.
TEST(Codec, DamagedBytesNeverCrash) {
  for_each_codec([](const std::string&, const Codec& codec) {
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
      KeyedRandom random(seed);
      const std::size_t count = 1 + random.below(600);
      std::vector<std::byte> bytes(codec.encoded_bytes(count));
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.below(256));
      std::vector<float> decoded(count);
      (void)codec.decode(bytes, decoded);
      Buffer encoded = codec.encode(normal_floats(count, seed));
      encoded.bytes[random.below(encoded.bytes.size())] ^= static_cast<std::byte>(1 << random.below(8));
      (void)codec.decode(encoded.bytes, decoded);
    }
  });
}

/// The square of the relative error on normal values, over all of them.
TEST(Codec, TheErrorOnNormalValuesIsThatOfTheFormat) {
  const std::map<std::string, double> largest = {
      {"fp32", 0},   {"bf16", 4e-6}, {"fp16", 3e-7}, {"int8", 8e-5}, {"int8_sigma", 2e-4},
      {"fp8", 8e-4}, {"int4", 0.02}, {"e3m0", 0.04}, {"int2", 0.13}, {"topk", 0.76}};
  const std::vector<float> values = normal_floats(100000, 9);
  for_each_codec([&](const std::string& name, const Codec& codec) {
    const std::vector<float> decoded = round_trip(codec, values);
    double error = 0, square = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double value = static_cast<double>(values[i]), e = static_cast<double>(decoded[i]) - value;
      error += e * e;
      square += value * value;
    }
    ASSERT_TRUE(largest.contains(name)) << "say what to expect of it";
    EXPECT_LE(error / square, largest.at(name));
    if (name != "fp32") {
      EXPECT_GT(error / square, largest.at(name) / 8) << "the bound is loose";
    }
  });
}

TEST(Codec, Fp32CarriesEveryBitOfTheValues) {
  const auto codec = Registry<Codec>::builtin().make("fp32", {});
  EXPECT_TRUE(codec->carries_values());
  EXPECT_EQ(codec->encoded_bytes(10), 40u);
  const std::vector<float> values = awkward_floats();
  const Buffer encoded = codec->encode(values);
  std::vector<float> decoded(values.size());
  ASSERT_TRUE(codec->decode(encoded.bytes, decoded).ok());
  EXPECT_EQ(std::memcmp(values.data(), decoded.data(), values.size() * 4), 0);
}

}  // namespace
}  // namespace tessera
