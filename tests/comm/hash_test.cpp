#include "comm/hash.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

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

#if defined(__x86_64__)
/// The upper halves of the vector registers.
__attribute__((target("avx"), noinline)) bool wide_registers_are_clear() {
  std::uint64_t wide[4 * 16];
  asm volatile(
      "vmovdqu %%ymm0, (%0)\n vmovdqu %%ymm1, 32(%0)\n vmovdqu %%ymm2, 64(%0)\n vmovdqu %%ymm3, 96(%0)\n"
      "vmovdqu %%ymm4, 128(%0)\n vmovdqu %%ymm5, 160(%0)\n vmovdqu %%ymm6, 192(%0)\n"
      "vmovdqu %%ymm7, 224(%0)\n vmovdqu %%ymm8, 256(%0)\n vmovdqu %%ymm9, 288(%0)\n"
      "vmovdqu %%ymm10, 320(%0)\n vmovdqu %%ymm11, 352(%0)\n vmovdqu %%ymm12, 384(%0)\n"
      "vmovdqu %%ymm13, 416(%0)\n vmovdqu %%ymm14, 448(%0)\n vmovdqu %%ymm15, 480(%0)\n"
      :
      : "r"(wide)
      : "memory");
  std::uint64_t upper = 0;
  for (int i = 0; i < 16; ++i) upper |= wide[4 * i + 2] | wide[4 * i + 3];
  return upper == 0;
}

/// What follows a digest is slow otherwise.
TEST(Hash, LeavesNoWideRegisterInUse) {
  if (!__builtin_cpu_supports("avx")) GTEST_SKIP() << "this processor has none";
  const std::vector<std::byte> bytes(100'000, std::byte{0x5a});
  Hasher hasher;
  Digest digest = digest_of(bytes);
  EXPECT_TRUE(wide_registers_are_clear());
  std::uint64_t checksum = checksum64(bytes);
  EXPECT_TRUE(wide_registers_are_clear());
  hasher.add(bytes);
  EXPECT_TRUE(wide_registers_are_clear());
  digest = hasher.digest();
  EXPECT_TRUE(wide_registers_are_clear());
  EXPECT_NE(checksum, 0u);
  EXPECT_EQ(digest, digest_of(bytes));
}
#endif

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
