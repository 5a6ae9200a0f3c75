#include "comm/storage/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <iostream>

#include "base/random.h"

namespace tessera {
namespace {
using ::testing::HasSubstr;

/// A file from a header and some data, whatever they say.
Buffer file_of(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string bytes(8 + header.size() + data_bytes, '\1');
  std::memcpy(bytes.data(), &length, 8);
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  return Buffer::copy_of(std::as_bytes(std::span(bytes)));
}

TensorMap sample() {
  TensorMap tensors;
  tensors["blocks.0.mlp.up[0:2]"] = HostTensor::of<float>(DType::f32, {2, 3}, {1, 2, 3, 4, 5, 6});
  tensors["a/bytes"] = HostTensor::of<std::uint8_t>(DType::u8, {3}, {7, 8, 9});
  tensors["half"] = HostTensor::of<std::uint16_t>(DType::bf16, {1, 1}, {0x3f80});
  tensors["moment:count"] = HostTensor::of<std::int64_t>(DType::i64, {}, {41});
  tensors["none"] = HostTensor::empty(DType::f64, {0, 4});
  return tensors;
}

std::string refusal(Buffer file) {
  const Result<SafetensorsFile> decoded = decode_safetensors(std::move(file), "somewhere");
  return decoded.ok() ? "" : decoded.error().message;
}

TEST(Safetensors, ComeBackBitForBitAsViewsThatOutliveTheFile) {
  const std::map<std::string, std::string> metadata = {{"job", "17"}, {"note", "\"quoted\"\n"}};
  SafetensorsFile file;
  {
    Buffer encoded = encode_safetensors(sample(), metadata);
    const std::byte* begin = encoded.bytes.data();
    const std::byte* end = begin + encoded.bytes.size();
    Result<SafetensorsFile> decoded = decode_safetensors(std::move(encoded));
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    file = std::move(decoded).value();
    for (const auto& [name, tensor] : file.tensors) {
      EXPECT_TRUE(tensor.bytes().data() >= begin && tensor.bytes().data() <= end) << name << " is a copy";
    }
  }
  EXPECT_TRUE(bit_equal(file.tensors, sample()));
  EXPECT_EQ(file.metadata, metadata);
}

TEST(Safetensors, EqualTensorsGiveEqualBytesWithDataAt64) {
  const Buffer file = encode_safetensors(sample());
  const Buffer again = encode_safetensors(sample());
  EXPECT_TRUE(std::equal(file.bytes.begin(), file.bytes.end(), again.bytes.begin(), again.bytes.end()));
  std::uint64_t length = 0;
  std::memcpy(&length, file.bytes.data(), 8);
  EXPECT_EQ((8 + length) % 64, 0u);
  EXPECT_EQ(file.bytes.size(), 8 + length + total_bytes(sample()));
  EXPECT_TRUE(decode_safetensors(encode_safetensors({})).ok());
}

TEST(Safetensors, ABlobHasTheDigestsOfTheFileAndOfItsTensors) {
  TensorMap tensors{{"a", HostTensor::zeros(DType::u8, {3})},  // last in the file
                    {"b", HostTensor::zeros(DType::f32, {100'000, 2})},
                    {"c", HostTensor::zeros(DType::f64, {0})},
                    {"d", HostTensor::of<float>(DType::f32, {2}, {1, -2})}};
  for (float& value : tensors.at("b").as<float>())
    value = static_cast<float>(&value - tensors.at("b").as<float>().data());
  TensorDigests digests;
  const Blob blob = safetensors_blob(tensors, Buffer::allocate, &digests);
  EXPECT_TRUE(std::ranges::equal(blob.bytes(), Bytes(encode_safetensors(tensors).bytes)));
  EXPECT_EQ(blob.digest, digest_of(blob.bytes()));
  EXPECT_EQ(safetensors_blob(tensors).digest, blob.digest);
  ASSERT_EQ(digests.size(), tensors.size());
  for (const auto& [name, digest] : digests) EXPECT_EQ(digest, tensor_digest(name, tensors.at(name))) << name;
  EXPECT_EQ(state_digest(digests), state_digest(tensors));
}

TEST(Safetensors, GoldenFileOfTheSpecification) {
  const std::string header =
      R"({"__metadata__":{"made":"by hand"},"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[],"data_offsets":[8,9]}} )";
  const Result<SafetensorsFile> file = decode_safetensors(file_of(header, 9));
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(file->metadata.at("made"), "by hand");
  EXPECT_EQ(file->tensors.at("w").shape, (std::vector<std::int64_t>{2, 1}));
  EXPECT_EQ(file->tensors.at("b").shape, std::vector<std::int64_t>{});
}

TEST(Safetensors, MisalignedTensorsOfOthersAreCopied) {
  const std::string header =
      R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"F64","shape":[1],"data_offsets":[1,9]}})";
  const Result<SafetensorsFile> file = decode_safetensors(file_of(header, 9));
  ASSERT_TRUE(file.ok()) << file.error().message;
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file->tensors.at("w").bytes().data()) % 8, 0u);
}

TEST(Safetensors, EveryLieOfAHeaderIsRefusedByName) {
  const auto one = [](const std::string& entry) { return file_of("{\"w\":" + entry + "}", 8); };
  EXPECT_THAT(refusal(Buffer::allocate(7)), HasSubstr("somewhere: has 7 bytes"));
  EXPECT_THAT(refusal(file_of("{", 0)), HasSubstr("not JSON"));
  EXPECT_THAT(refusal(file_of("[]", 0)), HasSubstr("not a JSON object"));
  EXPECT_THAT(refusal(file_of(std::string(100000, '['), 0)), HasSubstr("nested"));
  EXPECT_THAT(refusal(file_of("{}", 5)), HasSubstr("5 bytes after the last tensor"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[2]})")), HasSubstr("tensor 'w': its entry"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F99","shape":[2],"data_offsets":[0,8]})")), HasSubstr("dtype"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})")),
              HasSubstr("takes 12 bytes"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})")),
              HasSubstr("whole number"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})")),
              HasSubstr("larger"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]})")),
              HasSubstr("larger"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]})")),
              HasSubstr("rank 9"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})")), HasSubstr("[begin, end]"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[2],"data_offsets":[4,12]})")), HasSubstr("gap"));
  EXPECT_THAT(refusal(one(R"({"dtype":"F32","shape":[4],"data_offsets":[0,16]})")), HasSubstr("cut short"));
  EXPECT_THAT(refusal(file_of(R"({"__metadata__":{"a":1}})", 0)), HasSubstr("not text"));
  const std::string four = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  EXPECT_THAT(refusal(file_of("{\"w\":" + four + ",\"w\":" + four + "}", 4)), HasSubstr("two entries 'w'"));
  EXPECT_THAT(refusal(file_of("{\"v\":" + four + ",\"w\":" + four + "}", 4)), HasSubstr("overlap"));
  EXPECT_THAT(refusal(file_of("{\"../../etc passwd\":" + four + "}", 4)), HasSubstr("name"));
  EXPECT_THAT(refusal(file_of("{\"" + std::string(257, 'a') + "\":" + four + "}", 4)), HasSubstr("name"));
  Buffer huge = file_of("{}", 0);
  huge.bytes[7] = std::byte{0x7f};
  EXPECT_THAT(refusal(huge), HasSubstr("16 MiB"));
}

/// One random change: a flipped byte, a cut, inserted or doubled bytes, a number of the header replaced.
std::string mutated(std::string file, KeyedRandom& random) {
  static const char* numbers[] = {
      "0", "-1", "1e300", "4294967296", "18446744073709551615", "99999999999999999999", "[]", "{}"};
  const std::size_t at = random.below(file.size());
  switch (random.below(5)) {
    case 0:
      file[at] = static_cast<char>(random.below(256));
      break;
    case 1:
      file.resize(at);
      break;
    case 2:
      file.insert(at, std::string(random.below(9), static_cast<char>(random.below(256))));
      break;
    case 3:
      file.insert(at, file.substr(random.below(file.size()), random.below(100)));
      break;
    default: {
      const std::size_t digit = file.find_first_of("0123456789", at);
      if (digit != std::string::npos) file.replace(digit, 1, numbers[random.below(std::size(numbers))]);
    }
  }
  return file;
}

TEST(Safetensors, TwentyThousandHostileFilesHarmNobody) {
  constexpr std::uint64_t seed = 20261123;
  SCOPED_TRACE(seed);
  KeyedRandom random(seed);
  const Buffer encoded = encode_safetensors(sample(), {{"job", "x"}});
  const std::string good(reinterpret_cast<const char*>(encoded.bytes.data()), encoded.bytes.size());
  int refused = 0;
  std::uint64_t sum = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string file = good;
    for (std::uint64_t n = 1 + random.below(3); n > 0 && !file.empty(); --n) file = mutated(file, random);
    // Of the exact size on the heap, so that the address sanitizer sees every byte read outside.
    const std::shared_ptr<char[]> exact(new char[file.size() + 1]);
    std::memcpy(exact.get(), file.data(), file.size());
    const Buffer buffer{std::shared_ptr<void>(exact, exact.get()),
                        {reinterpret_cast<std::byte*>(exact.get()), file.size()}};
    const Result<SafetensorsFile> decoded = decode_safetensors(buffer, "hostile");
    if (!decoded.ok()) {
      ++refused;
      EXPECT_EQ(decoded.error().code, ExitCode::storage);
      continue;
    }
    for (const auto& [name, tensor] : decoded->tensors) {
      ASSERT_EQ(tensor.bytes().size(), tensor.elements() * size_of(tensor.dtype));
      for (std::byte byte : tensor.bytes()) sum += static_cast<std::uint64_t>(byte);
    }
  }
  std::cout << "seed " << seed << ": " << refused << " of 20000 refused (byte sum " << sum << ")\n";
  EXPECT_GT(refused, 10000);
}

}  // namespace
}  // namespace tessera
