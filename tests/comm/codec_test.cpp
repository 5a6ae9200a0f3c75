#include "comm/codec.h"

#include <gtest/gtest.h>
#include <tessera_plugins/codecs.h>

#include <algorithm>
#include <cstring>
#include <limits>

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

TEST(Codec, EveryCodecKeepsItsSizesAndRefusesWrongOnes) {
  for (const std::string& name : Registry<Codec>::builtin().names()) {
    SCOPED_TRACE(name);
    const auto codec = Registry<Codec>::builtin().make(name, {});
    for (std::size_t count : {0, 1, 2, 255, 1000}) {
      const std::vector<float> values(count, 0.25f);
      const Buffer encoded = codec->encode(values);
      EXPECT_EQ(encoded.bytes.size(), codec->encoded_bytes(count));
      std::vector<float> decoded(count);
      EXPECT_TRUE(codec->decode(encoded.bytes, decoded).ok());
      std::vector<float> more(count + 64);
      const Status refused = codec->decode(encoded.bytes, more);
      ASSERT_FALSE(refused.ok());
      EXPECT_NE(refused.error().message.find(name), std::string::npos);
    }
  }
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
