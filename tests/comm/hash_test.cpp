#include "comm/hash.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"

namespace tessera {
namespace {

// Vectors of the xxHash reference implementation (xxhsum -H3 and -H2).
TEST(Hash, EqualsTheReferenceVectors) {
  EXPECT_EQ(checksum64({}), 0x2d06800538d394c2ull);
  EXPECT_EQ(digest_of("").hex(), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(digest_of("a").hex(), "a96faf705af16834e6c632b61e964e1f");
  EXPECT_EQ(digest_of("abc").hex(), "06b05ab6733a618578af5f94892f3950");
}

TEST(Hash, OfAStreamDoesNotDependOnItsPieces) {
  KeyedRandom random(1);
  std::string text(100'000, '\0');
  for (char& c : text) c = static_cast<char>(random.below(256));
  for (int seed = 0; seed < 20; ++seed) {
    Hasher hasher;
    for (std::string_view rest = text; !rest.empty();) {
      const std::size_t piece = std::min<std::size_t>(rest.size(), 1 + random.below(5000));
      hasher.add(rest.substr(0, piece));
      rest.remove_prefix(piece);
    }
    EXPECT_EQ(hasher.digest(), digest_of(text));
  }
}

// comm/hash.h says which bytes a tensor's digest is over; written out here by hand.
TEST(Hash, OfATensorIsOverNameTypeShapeAndBytes) {
  const HostTensor tensor = HostTensor::of<float>(DType::f32, {2, 1}, {1.0f, 2.0f});
  const std::string written(
      "w\0F32\0"
      "\2\0\0\0\0\0\0\0"
      "\2\0\0\0\0\0\0\0"
      "\1\0\0\0\0\0\0\0"
      "\0\0\x80\x3f\0\0\0\x40",
      6 + 24 + 8);
  EXPECT_EQ(tensor_digest("w", tensor), digest_of(written));
}

TEST(Hash, OfAStateChangesWithNameShapeTypeAndAnyBit) {
  const auto state = [](const std::string& name, std::vector<std::int64_t> shape, DType dtype, float value) {
    HostTensor tensor = HostTensor::of<float>(DType::f32, {2, 2}, {1, 2, 3, value});
    tensor.shape = std::move(shape);
    tensor.dtype = dtype;
    return state_digest({{name, tensor}});
  };
  const Digest base = state("w", {2, 2}, DType::f32, 4);
  EXPECT_EQ(base, state("w", {2, 2}, DType::f32, 4));
  EXPECT_NE(base, state("v", {2, 2}, DType::f32, 4));
  EXPECT_NE(base, state("w", {4, 1}, DType::f32, 4));
  EXPECT_NE(base, state("w", {2, 2}, DType::i32, 4));
  EXPECT_NE(base, state("w", {2, 2}, DType::f32, std::nextafter(4.0f, 5.0f)));
}

}  // namespace
}  // namespace tessera
