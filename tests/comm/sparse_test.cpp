// Updates of some coordinates: both ends come to the same file, and what is not one is refused.
#include "comm/sparse.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/random.h"
#include "comm/storage/safetensors.h"

namespace tessera {
namespace {

HostTensor tensor(std::vector<std::int64_t> shape, std::uint64_t seed) {
  HostTensor made = HostTensor::empty(DType::f32, std::move(shape));
  KeyedRandom random(seed);
  for (float& value : made.as<float>()) value = static_cast<float>(random.normal());
  return made;
}

/// Every third coordinate of "a" from that of the version on, all of the buffer.
std::optional<std::vector<std::int64_t>> every_third(const std::string& param, std::int64_t version) {
  if (param != "a" || version == 9) return std::nullopt;
  std::vector<std::int64_t> these;
  for (std::int64_t i = version % 3; i < 30; i += 3) these.push_back(i);
  return these;
}

const TensorMap base{{"a", tensor({6, 5}, 1)}, {"buffer", tensor({2}, 2)}};
const TensorMap wanted{{"a", tensor({6, 5}, 3)}, {"buffer", tensor({2}, 4)}};

TEST(Sparse, AnUpdateMakesTheVeryFileOfTheSender) {
  const TensorMap update = sparse_update(wanted, 4, every_third);
  EXPECT_EQ(update.at("a").elements(), 10);
  const Result<Buffer> made =
      apply_sparse_update(encode_safetensors(base), encode_safetensors(update), every_third);
  ASSERT_TRUE(made.ok()) << made.error().message;
  TensorMap expected{{"a", base.at("a").clone()}, {"buffer", wanted.at("buffer")}};
  for (std::size_t i = 1; i < 30; i += 3) expected.at("a").as<float>()[i] = wanted.at("a").as<float>()[i];
  const Buffer file = encode_safetensors(expected);
  ASSERT_EQ(made->bytes.size(), file.bytes.size());
  EXPECT_EQ(std::memcmp(made->bytes.data(), file.bytes.data(), file.bytes.size()), 0);
  EXPECT_TRUE(sparse_update(wanted, 9, every_third).empty()) << "all of it is better fetched as it is";
}

TEST(Sparse, WhatIsNoUpdateOfThisBaseIsRefused) {
  const Buffer whole = encode_safetensors(base);
  const auto refuses = [&](const TensorMap& update) {
    return !apply_sparse_update(whole, encode_safetensors(update), every_third).ok();
  };
  const TensorMap update = sparse_update(wanted, 4, every_third);
  EXPECT_FALSE(refuses(update));
  for (const auto& [name, other] : TensorMap{{"a", tensor({9}, 1)},
                                             {"buffer", tensor({3}, 1)},
                                             {"version", tensor({1}, 1)},
                                             {"c", tensor({1}, 1)}}) {
    TensorMap wrong = update;
    wrong.insert_or_assign(name, other);
    EXPECT_TRUE(refuses(wrong)) << name;
  }
  EXPECT_TRUE(refuses({{"a", update.at("a")}})) << "of which version?";
  const Buffer file = encode_safetensors(update);
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    KeyedRandom random(seed);
    Buffer damaged = Buffer::copy_of(file.bytes);
    damaged.bytes[random.below(damaged.bytes.size())] ^= static_cast<std::byte>(1 << random.below(8));
    (void)apply_sparse_update(whole, damaged, every_third);
  }
}

}  // namespace
}  // namespace tessera
