// Each format against its definition: every code, every tie, bounds of the error, and the same bits at every
// instruction set.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/random.h"
#include "base/set_numbers.h"
#include "base/simd_level.h"
#include "comm/codec.h"
#include "comm/codecs/kernels/kernels.h"

namespace tessera {

extern const CodecKernels codec_kernels_baseline;
#if defined(__x86_64__)
extern const CodecKernels codec_kernels_avx2, codec_kernels_avx512;
#endif

namespace {

using Values = std::vector<float>;

std::unique_ptr<Codec> make(const std::string& name) {
  return Registry<Codec>::builtin().make(name, {});
}
Values round_trip(const Codec& codec, const Values& values) {
  Values decoded(values.size());
  EXPECT_TRUE(codec.decode(codec.encode(values).bytes, decoded).ok());
  return decoded;
}
Values normal_values(std::size_t count, std::uint64_t seed, double scale = 1) {
  KeyedRandom random(seed);
  Values values(count);
  for (float& value : values) value = static_cast<float>(scale * random.normal());
  return values;
}
float largest(std::span<const float> values) {
  float most = 0;
  for (float value : values) most = std::max(most, std::abs(value));
  return most;
}
Bytes bytes_of(const std::vector<std::uint16_t>& codes) {
  return std::as_bytes(std::span(codes));
}

/// A half with so many exponent and mantissa bits, from its definition.
double half(std::uint16_t code, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const int exponent = code >> mantissa_bits & top, mantissa = code & ((1 << mantissa_bits) - 1);
  const double sign = code >> 15 ? -1 : 1;
  if (exponent == top) return mantissa ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  const double m =
      exponent == 0 ? std::ldexp(mantissa, 1 - mantissa_bits) : 1 + std::ldexp(mantissa, -mantissa_bits);
  return sign * std::ldexp(m, exponent - bias);
}

TEST(CodecFormats, EveryHalfIsWhatTheStandardSaysAndComesBack) {
  for (const auto& [name, exponent, mantissa] : {std::tuple{"bf16", 8, 7}, std::tuple{"fp16", 5, 10}}) {
    SCOPED_TRACE(name);
    const auto codec = make(name);
    std::vector<std::uint16_t> codes(65536);
    for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint16_t>(i);
    Values values(codes.size());
    ASSERT_TRUE(codec->decode(bytes_of(codes), values).ok());
    const Buffer back = codec->encode(values);
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const double expected = half(codes[i], exponent, mantissa);
      std::uint16_t code = 0;
      std::memcpy(&code, back.bytes.data() + 2 * i, 2);
      if (std::isnan(expected)) {
        EXPECT_TRUE(std::isnan(values[i])) << i;
        EXPECT_TRUE(std::isnan(half(code, exponent, mantissa))) << i;
        continue;
      }
      ASSERT_EQ(static_cast<double>(values[i]), expected) << i;
      ASSERT_EQ(code, codes[i]);
    }
  }
}

TEST(CodecFormats, HalvesRoundToTheNearestAndTiesToTheEven) {
  for (const auto& [name, exponent, mantissa, last] :
       {std::tuple{"bf16", 8, 7, 0x7f7f}, std::tuple{"fp16", 5, 10, 0x7bff}}) {
    SCOPED_TRACE(name);
    const auto codec = make(name);
    Values values, expected;
    for (int code = 0; code < last; ++code) {
      const auto low = static_cast<float>(half(static_cast<std::uint16_t>(code), exponent, mantissa)),
                 high = static_cast<float>(half(static_cast<std::uint16_t>(code + 1), exponent, mantissa));
      const auto middle = static_cast<float>((static_cast<double>(low) + static_cast<double>(high)) / 2);
      values.insert(values.end(), {middle, std::nextafter(middle, 0.f),
                                   std::nextafter(middle, std::numeric_limits<float>::infinity()), -middle});
      const float even = code % 2 == 0 ? low : high;
      expected.insert(expected.end(), {even, low, high, -even});
    }
    const Values decoded = round_trip(*codec, values);
    for (std::size_t i = 0; i < values.size(); ++i) ASSERT_EQ(decoded[i], expected[i]) << values[i];
  }
  EXPECT_EQ(round_trip(*make("fp16"), {65504.f, 65519.996f, -65504.f}), (Values{65504.f, 65504.f, -65504.f}));
  EXPECT_TRUE(std::isinf(round_trip(*make("fp16"), {65520.f})[0]));
  EXPECT_TRUE(std::isinf(round_trip(*make("bf16"), {std::numeric_limits<float>::max()})[0]));
}

/// e4m3 from its definition; NaN for the codes 0x7f and 0xff.
double e4m3(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if (exponent == 15 && mantissa == 7) return std::nan("");
  const double m = exponent == 0 ? mantissa / 4.0 : 1 + mantissa / 8.0;
  return (code & 0x80 ? -1 : 1) * std::ldexp(m, exponent - 7);
}

/// The bytes of one block: its scale, then a code each.
Buffer one_block(float scale, const std::vector<std::uint8_t>& codes) {
  Buffer bytes = Buffer::allocate(sizeof scale + codes.size());
  std::memcpy(bytes.bytes.data(), &scale, sizeof scale);
  std::memcpy(bytes.bytes.data() + sizeof scale, codes.data(), codes.size());
  return bytes;
}

TEST(CodecFormats, EveryCodeOfEightBitsIsWhatItsFormatSaysAndComesBack) {
  std::vector<std::uint8_t> codes(256);
  for (int i = 0; i < 256; ++i) codes[i] = static_cast<std::uint8_t>(i);
  Values fp8(256), int8(256);
  ASSERT_TRUE(make("fp8")->decode(one_block(0.5f, codes).bytes, fp8).ok());
  ASSERT_TRUE(make("int8")->decode(one_block(0.5f, codes).bytes, int8).ok());
  for (int i = 0; i < 256; ++i) {
    EXPECT_EQ(int8[i], 0.5f * static_cast<float>(static_cast<std::int8_t>(i)));
    if (std::isnan(e4m3(i))) {
      EXPECT_TRUE(std::isnan(fp8[i]));
    } else {
      EXPECT_EQ(static_cast<double>(fp8[i]), 0.5 * e4m3(i)) << i;
    }
  }
  EXPECT_EQ(fp8[0x7e], 224.f) << "448 is the largest";
  EXPECT_EQ(fp8[0x01], 0x1p-10f) << "2^-9 is the least";
  for (auto* values : {&fp8, &int8}) {  // NaN, and -128, are codes that encoding never makes
    std::erase_if(*values, [](float x) { return std::isnan(x) || x == -64.f; });
    const auto codec = make(values == &fp8 ? "fp8" : "int8");
    EXPECT_EQ(round_trip(*codec, *values), *values);
  }
}

TEST(CodecFormats, EveryCodeOfFourAndTwoBitsComesBack) {
  Values int4, e3m0{0.f, -0.f}, int2{-1.5f, -0.5f, 0.5f, 1.5f};
  for (int q = -7; q <= 7; ++q) int4.push_back(0.25f * static_cast<float>(q));
  for (int e = -6; e <= 0; ++e) e3m0.insert(e3m0.end(), {std::ldexp(3.f, e), -std::ldexp(3.f, e)});
  EXPECT_EQ(round_trip(*make("int4"), int4), int4);
  EXPECT_EQ(round_trip(*make("e3m0"), e3m0), e3m0);
  const float rms = std::sqrt(1.25f);
  Values levels;
  for (float level : int2) levels.push_back(level * rms);
  EXPECT_EQ(round_trip(*make("int2"), int2), levels);
}

/// Values of one block whose scale is a power of two, so that products with it are exact.
TEST(CodecFormats, TiesGoToTheEvenCode) {
  EXPECT_EQ(round_trip(*make("int8"), {127.f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -126.5f}),
            (Values{127.f, 0.f, 2.f, 2.f, 0.f, -2.f, -126.f}));
  EXPECT_EQ(round_trip(*make("int4"), {7.f, 0.5f, 1.5f, 2.5f, -5.5f, -6.5f}),
            (Values{7.f, 0.f, 2.f, 2.f, -6.f, -6.f}));
  // Codes of 1, 1/2, 1/4 ... are 7, 6, 5 ...; 2^-7 lies between 0 and the least.
  EXPECT_EQ(
      round_trip(*make("e3m0"), {1.f, 0.75f, 0.375f, -0.375f, 0x1p-7f, 0x1.1p-7f, 0x1.8p-6f, 0x1.7p-6f}),
      (Values{1.f, 0.5f, 0.5f, -0.5f, 0.f, 0x1p-6f, 0x1p-5f, 0x1p-6f}));
  const auto fp8 = make("fp8");
  Values values{448.f}, expected{448.f};
  for (int code = 0; code < 0x7e; ++code) {
    const auto low = static_cast<float>(e4m3(code)), high = static_cast<float>(e4m3(code + 1));
    const float middle = (low + high) / 2;
    values.insert(values.end(),
                  {middle, -middle, std::nextafter(middle, 0.f), std::nextafter(middle, 500.f)});
    const float even = code % 2 == 0 ? low : high;
    expected.insert(expected.end(), {even, -even, low, high});
  }
  // Each pair in a block with the largest value, so that all have the same scale.
  for (std::size_t i = 1; i < values.size(); ++i)
    ASSERT_EQ(round_trip(*fp8, {448.f, values[i]})[1], expected[i]) << values[i];
}

TEST(CodecFormats, ErrorsStayWithinTheBoundsThatTheFilesState) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    const auto count = static_cast<std::size_t>(1 + random.below(256));  // one block
    Values values = normal_values(count, seed, std::pow(10.0, static_cast<double>(random.below(40)) - 20));
    if (random.chance(0.3)) values[random.below(count)] *= 1000;
    const double most = static_cast<double>(largest(values));
    double square = 0;
    for (float value : values) square += static_cast<double>(value) * static_cast<double>(value);
    const double rms = std::sqrt(square / static_cast<double>(count));
    const std::map<std::string, std::function<double(double)>> bounds = {
        {"int8", [&](double) { return most / 127 / 2; }},
        {"int4", [&](double) { return most / 7 / 2; }},
        {"fp8", [&](double x) { return std::max(x * 0x1p-4, most / 448 * 0x1p-10); }},
        {"e3m0", [&](double x) { return std::max(x / 3, most * 0x1p-7); }},
        {"int2", [&](double x) { return std::max(rms / 2, x - 1.5 * rms); }},
        {"bf16", [&](double x) { return x * 0x1p-8; }}};
    for (const auto& [name, bound] : bounds) {
      const Values decoded = round_trip(*make(name), values);
      for (std::size_t i = 0; i < count; ++i) {
        const double x = static_cast<double>(values[i]);
        ASSERT_LE(std::abs(static_cast<double>(decoded[i]) - x), bound(std::abs(x)) * (1 + 1e-5))
            << name << " " << x;
      }
    }
  }
}

TEST(CodecFormats, BlocksHaveScalesOfTheirOwn) {
  Values values = normal_values(1000, 2);
  for (std::size_t i = 256; i < 512; ++i) values[i] *= 1e-6f;
  for (std::size_t i = 512; i < 768; ++i) values[i] = 0;
  const Values decoded = round_trip(*make("int8"), values);
  for (std::size_t i = 256; i < 512; ++i) ASSERT_NEAR(decoded[i], values[i], 3e-6 * 4 / 127);
  for (std::size_t i = 512; i < 768; ++i) ASSERT_EQ(decoded[i], 0.f);
  values[100] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isfinite(round_trip(*make("int8"), values)[300])) << "a NaN spoils its block alone";
  EXPECT_TRUE(std::isnan(round_trip(*make("int8"), {0x1p120f, 1.f})[1])) << "too large to divide by";
}

TEST(CodecFormats, TheCodebookHoldsTheMeansOfTheBins) {
  const auto codec = make("int8_sigma");
  const Values values = normal_values(20000, 6, 3e-4);
  const Buffer encoded = codec->encode(values);
  const Values decoded = round_trip(*codec, values);
  double sum = 0, square = 0;
  for (float value : values)
    sum += static_cast<double>(value), square += static_cast<double>(value) * static_cast<double>(value);
  const double mean = sum / 20000, sigma = std::sqrt(square / 20000 - mean * mean);
  std::vector<double> bin_sum(256);
  std::vector<int> bin_count(256);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const int code = static_cast<int>(encoded.bytes[1024 + i]);
    const double position = (static_cast<double>(values[i]) - mean) / (12 * sigma / 256) + 128;
    ASSERT_NEAR(code + 0.5, position, 0.5 + 1e-3) << values[i];
    bin_sum[code] += static_cast<double>(values[i]);
    ++bin_count[code];
    ASSERT_LE(std::abs(decoded[i] - values[i]), 12 * sigma / 256 * (1 + 1e-4));
  }
  for (int bin = 0; bin < 256; ++bin) {
    float entry = 0;
    std::memcpy(&entry, encoded.bytes.data() + 4 * bin, 4);
    ASSERT_NEAR(entry, bin_count[bin] > 0 ? bin_sum[bin] / bin_count[bin] : 0, 1e-4 * 12 * sigma / 256)
        << bin;
  }
  Values equal(300, 0.1f);
  EXPECT_EQ(round_trip(*codec, equal), equal);
  Values one_off(10000, 1e-3f);  // 1e-3 and once 5: mean 0.0015, deviation 0.05
  one_off[77] = 5.f;
  const Values cut = round_trip(*codec, one_off);
  EXPECT_NEAR(cut[77], 0.0015 + 6 * 0.05, 1e-3) << "cut to six deviations";
  EXPECT_NEAR(cut[0], 1e-3f, 12 * 0.05 / 256);
}

std::unique_ptr<Codec> topk(double density, int chunk = 65536, int value_bits = 32) {
  const auto settings = Registry<Codec>::builtin().make_settings("topk");
  set_numbers(*settings, {{"density", density}, {"chunk", chunk}, {"value_bits", value_bits}});
  EXPECT_TRUE(settings->problems().empty());
  return Registry<Codec>::builtin().make("topk", *settings, {});
}

TEST(CodecFormats, TopkSendsTheLargestAndEqualOnesInOrder) {
  EXPECT_EQ(round_trip(*topk(0.5), {1, -3, 2, -2, 0.5, 2}), (Values{0, -3, 2, -2, 0, 0}));
  EXPECT_EQ(topk(0.5)->encoded_bytes(6), 18u);
  EXPECT_EQ(round_trip(*topk(0.01), {1, -3, 2}), (Values{0, -3, 0})) << "at least one";
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    KeyedRandom random(seed);
    const Values values = normal_values(1 + random.below(150000), seed);
    EXPECT_EQ(round_trip(*topk(1), values), values) << "all of them, exactly: seed " << seed;
    const Values decoded = round_trip(*topk(0.1), values);
    for (std::size_t chunk = 0; chunk < values.size(); chunk += 65536) {
      const std::size_t end = std::min(values.size(), chunk + 65536);
      float least_sent = 1e9f, most_left = 0;
      std::size_t sent = 0;
      for (std::size_t i = chunk; i < end; ++i) {
        if (decoded[i] != 0) {
          ASSERT_EQ(decoded[i], values[i]);
          least_sent = std::min(least_sent, std::abs(values[i]));
          ++sent;
        } else {
          most_left = std::max(most_left, std::abs(values[i]));
        }
      }
      EXPECT_EQ(sent, static_cast<std::size_t>(std::ceil(0.1 * static_cast<double>(end - chunk))));
      EXPECT_GE(least_sent, most_left);
    }
  }
}

TEST(CodecFormats, TopkRefusesPositionsThatAreOutsideOrOutOfOrder) {
  const auto codec = topk(0.5);
  const Values values{4, 3, 2, 1};
  Values decoded(4);
  for (const auto& [first, second] :
       {std::pair{1, 0}, std::pair{2, 2}, std::pair{0, 4}, std::pair{65535, 65535}}) {
    Buffer bytes = codec->encode(values);
    const std::uint16_t positions[] = {static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(second)};
    std::memcpy(bytes.bytes.data(), positions, 4);
    EXPECT_FALSE(codec->decode(bytes.bytes, decoded).ok()) << first << " " << second;
  }
}

/// SparseLoCo's choice: 64 of 4096 in 12 bits for the position and 2 for the value.
TEST(CodecFormats, TopkOfTwoBitsTakesTheBitsThatThePaperCounts) {
  const auto codec = topk(64.0 / 4096, 4096, 2);
  EXPECT_EQ(codec->encoded_bytes(4096 * 1000), 16u + 1000u * 64u * 14u / 8u);
  EXPECT_NEAR(8.0 * static_cast<double>(codec->encoded_bytes(1 << 24)) / (1 << 24), 0.21875, 1e-5);
  EXPECT_EQ(codec->encoded_bytes(4096 + 100), 16u + 112u + 3u + 1u) << "two of a hundred";
  EXPECT_EQ(codec->encoded_bytes(0), 0u);
  EXPECT_EQ(topk(0.5, 3, 32)->encoded_bytes(7), 2u * (1u + 8u) + (1u + 4u)) << "positions of two bits";
}

TEST(CodecFormats, TopkOfTwoBitsSendsTheMeansOfFourGroups) {
  // Sent are 1, -4, 3, -1, 2, -2, 7 and 4: their mean magnitude is 3.
  const Values values{1, 0.1f, -4, 3, 0.2f, -1, -0.3f, 2, -2, 0.4f, 7, -0.5f, 4, 0.6f, 0, 0.7f};
  const Values expected{2, 0, -4, 2, 0, -1.5f, 0, 2, -1.5f, 0, 5.5f, 0, 5.5f, 0, 0, 0};
  EXPECT_EQ(round_trip(*topk(0.5, 16, 2), values), expected);
  EXPECT_EQ(round_trip(*topk(1, 4, 2), Values{-5, 5, -5, 5, 5}), (Values{-5, 5, -5, 5, 5}));
  using limits = std::numeric_limits<float>;
  for (float bad : {limits::quiet_NaN(), limits::infinity(), -limits::infinity()}) {
    Values spoilt = values;
    spoilt[9] = bad;
    EXPECT_FALSE(std::isfinite(round_trip(*topk(0.5, 16, 2), spoilt)[9]));
  }
}

TEST(CodecFormats, TopkOfTwoBitsSendsTheSamePlacesAsWithFloats) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    const Values values = normal_values(1 + random.below(20000), seed);
    const int chunk = 2 + static_cast<int>(random.below(5000));
    const double density = 0.01 + 0.5 * random.uniform();
    const Values coarse = round_trip(*topk(density, chunk, 2), values),
                 fine = round_trip(*topk(density, chunk), values);
    double error = 0, square = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(coarse[i] == 0, fine[i] == 0) << i;
      ASSERT_GE(coarse[i] * fine[i], 0) << "signs are kept";
      error += std::pow(static_cast<double>(coarse[i] - fine[i]), 2);
      square += std::pow(static_cast<double>(fine[i]), 2);
    }
    if (values.size() > 1000) {
      EXPECT_LT(error / square, 0.12);
    }
  }
}

TEST(CodecFormats, TopkOfTwoBitsNeverCrashesOnDamage) {
  const auto codec = topk(0.3, 100, 2);
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    KeyedRandom random(seed);
    const std::size_t count = 1 + random.below(600);
    Buffer encoded = codec->encode(normal_values(count, seed));
    encoded.bytes[random.below(encoded.bytes.size())] ^= static_cast<std::byte>(1 << random.below(8));
    Values decoded(count);
    (void)codec->decode(encoded.bytes, decoded);
    EXPECT_FALSE(codec->decode(Bytes(encoded.bytes).first(encoded.bytes.size() - 1), decoded).ok());
  }
}

struct Level {
  const char* name;
  const CodecKernels* kernels;
};
std::vector<Level> levels() {
  std::vector<Level> known{{"baseline", &codec_kernels_baseline}};
#if defined(__x86_64__)
  if (simd_level() >= SimdLevel::avx2) known.push_back({"avx2", &codec_kernels_avx2});
  if (simd_level() >= SimdLevel::avx512) known.push_back({"avx512", &codec_kernels_avx512});
#endif
  return known;
}

TEST(CodecFormats, EveryInstructionSetGivesTheSameBits) {
  const CodecKernels& reference = codec_kernels_baseline;
  using Kernel = BlockKernels CodecKernels::*;
  for (const Level& level : levels()) {
    SCOPED_TRACE(level.name);
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
      SCOPED_TRACE("seed " + std::to_string(seed));
      KeyedRandom random(seed);
      const auto count = static_cast<std::int64_t>(1 + random.below(700));
      const Values x = normal_values(static_cast<std::size_t>(count), seed,
                                     std::pow(10.0, static_cast<double>(random.below(30)) - 15));
      for (Kernel kernel : {&CodecKernels::int8, &CodecKernels::int4, &CodecKernels::int2, &CodecKernels::fp8,
                            &CodecKernels::e3m0}) {
        const BlockKernels &a = reference.*kernel, &b = level.kernels->*kernel;
        const float scale = a.scale(x.data(), count);
        ASSERT_EQ(scale, b.scale(x.data(), count));
        std::vector<std::uint8_t> code_a(count), code_b(count);
        a.encode(x.data(), count, scale, code_a.data());
        b.encode(x.data(), count, scale, code_b.data());
        ASSERT_EQ(code_a, code_b);
        Values out_a(count), out_b(count);
        a.decode(code_a.data(), count, scale, out_a.data());
        b.decode(code_a.data(), count, scale, out_b.data());
        ASSERT_EQ(out_a, out_b);
      }
      const Moments a = reference.moments(x.data(), count), b = level.kernels->moments(x.data(), count);
      ASSERT_EQ(a.mean, b.mean);
      ASSERT_EQ(a.deviation, b.deviation);
      std::vector<std::uint8_t> bin_a(count), bin_b(count);
      std::vector<std::uint32_t> at_a(count), at_b(count);
      reference.bins(x.data(), count, x[0], 1e8f, at_a.data(), bin_a.data());
      level.kernels->bins(x.data(), count, x[0], 1e8f, at_b.data(), bin_b.data());
      ASSERT_EQ(bin_a, bin_b);
      ASSERT_EQ(at_a, at_b);
      std::vector<std::uint16_t> half_a(count), half_b(count);
      reference.to_fp16(x.data(), count, half_a.data());
      level.kernels->to_fp16(x.data(), count, half_b.data());
      ASSERT_EQ(half_a, half_b);
    }
  }
}

}  // namespace
}  // namespace tessera
