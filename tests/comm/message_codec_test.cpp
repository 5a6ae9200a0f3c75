#include "comm/message_codec.h"

#include <gmock/gmock.h>

#include <cmath>

#include "comm/drop_reasons.h"
#include "comm/message_checks.h"
#include "tests/comm/message_samples.h"

namespace tessera {
namespace {

using test::MessageSamples;

bool is_drop_reason(const std::string& word) {
  return std::find(drop::all.begin(), drop::all.end(), word) != drop::all.end();
}

// Refused with a word of the list, or a message that could have been sent: decoding never hands on anything
// else.
void expect_refused_or_valid(Bytes frame) {
  const Result<Decoded> decoded = decode(frame);
  if (!decoded.ok()) {
    EXPECT_TRUE(is_drop_reason(decoded.error().message)) << decoded.error().message;
  } else if (const Message* message = std::get_if<Message>(&decoded->content)) {
    EXPECT_EQ(problem_of(*message), nullptr) << message_name(*message);
  }
}

std::string refusal_of(Bytes frame) {
  const Result<Decoded> decoded = decode(frame);
  return decoded.ok() ? "accepted" : decoded.error().message;
}

class EveryMessage : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Kinds, EveryMessage, testing::Range<std::size_t>(0, MessageSamples::kinds),
                         [](const auto& kind) { return message_name(MessageSamples(1).of(kind.param)); });

TEST_P(EveryMessage, ComesBackAsItWas) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    MessageSamples samples(seed);
    const Message message = samples.of(GetParam());
    const Header header = samples.header();
    const Result<Decoded> decoded = decode(encode(header, message));
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    EXPECT_EQ(decoded->header, header);
    EXPECT_TRUE(std::get<Message>(decoded->content) == message);
  }
}

TEST_P(EveryMessage, ComesBackFromUnalignedMemory) {
  MessageSamples samples(3);
  const Message message = samples.of(GetParam());
  const std::vector<std::byte> frame = encode({}, message);
  for (std::size_t shift = 1; shift < 8; ++shift) {
    std::vector<std::byte> memory(frame.size() + shift);
    std::copy(frame.begin(), frame.end(), memory.begin() + shift);
    const Result<Decoded> decoded = decode(Bytes(memory).subspan(shift));
    ASSERT_TRUE(decoded.ok());
    EXPECT_TRUE(std::get<Message>(decoded->content) == message);
  }
}

TEST_P(EveryMessage, IsRefusedWhenCutShort) {
  MessageSamples samples(5);
  const std::vector<std::byte> frame = encode(samples.header(), samples.of(GetParam()));
  for (std::size_t length = 0; length < frame.size(); ++length)
    EXPECT_EQ(refusal_of(Bytes(frame).first(length)),
              length % 8 != 0 || length == 0 ? drop::ragged : drop::malformed);
}

TEST_P(EveryMessage, IsRefusedOrStaysValidWhenBytesChange) {
  constexpr std::uint64_t mutations = 20'000;
  KeyedRandom random(key_of({GetParam(), 77}));
  std::vector<std::byte> frame;
  for (std::uint64_t i = 0; i < mutations; ++i) {
    SCOPED_TRACE(testing::Message() << "mutation " << i);
    if (i % 200 == 0) {
      MessageSamples samples(i);
      frame = encode(samples.header(), samples.of(GetParam()));
    }
    std::vector<std::byte> mutated = frame;
    for (std::uint64_t changes = 1 + random.below(4); changes > 0; --changes) {
      std::byte& byte = mutated[random.below(mutated.size())];
      byte = random.chance(0.5) ? byte ^ std::byte(1 << random.below(8)) : std::byte(random.below(256));
    }
    expect_refused_or_valid(mutated);
  }
}

TEST(Decode, RefusesRandomBytes) {
  KeyedRandom random(11);
  for (int i = 0; i < 20'000; ++i) {
    std::vector<std::byte> noise(8 * random.below(64));
    for (std::byte& byte : noise) byte = std::byte(random.below(random.chance(0.5) ? 256 : 4));
    EXPECT_NE(refusal_of(noise), "accepted");
    expect_refused_or_valid(noise);
  }
}

TEST(Decode, RefusesWhatIsTooLarge) {
  EXPECT_EQ(refusal_of(std::vector<std::byte>(max_large_frame_bytes + 8)), drop::too_large);
  // A long recipe is welcome; the same bytes as anything else are not.
  const Result<Decoded> welcome = decode(encode({}, Welcome{std::string(200'000, 'x'), 1}));
  EXPECT_TRUE(welcome.ok());
}

TEST(Decode, RefusesTrailingBytes) {
  std::vector<std::byte> frame = encode({}, Leave{"done"});
  frame.resize(frame.size() + 8);
  EXPECT_EQ(refusal_of(frame), drop::malformed);
}

// decode() must refuse what encode() would never send: the plain structs are checked with the same function
// on both sides.
TEST(MessageChecks, NameTheFirstProblem) {
  const auto grant_with = [](RowSet owned) {
    Grant grant;
    grant.owned = std::move(owned);
    return Message(grant);
  };
  Offer offer;
  EXPECT_EQ(problem_of(offer), nullptr);
  offer.work.loss_sum = std::nan("");  // a diverged slot must be able to say so
  EXPECT_EQ(problem_of(offer), nullptr);
  offer.work.units = std::nan("");
  EXPECT_STREQ(problem_of(offer), drop::number);
  offer.work = {.first_sample = 2, .end_sample = 1};
  EXPECT_STREQ(problem_of(offer), drop::range);
  offer.work = {};
  offer.contribution.path = "/dev/shm/../etc/passwd";
  EXPECT_STREQ(problem_of(offer), drop::text);
  offer.contribution = {{}, ~0ull, {}};
  EXPECT_STREQ(problem_of(offer), drop::number);
  EXPECT_STREQ(problem_of(Revoke{{-1}, {0}}), drop::number);
  EXPECT_STREQ(problem_of(Evaluated{{-1}}), drop::number);
  EXPECT_STREQ(problem_of(Stop{"", 256}), drop::number);
  EXPECT_STREQ(problem_of(Leave{"line\x1b[2J"}), drop::text);
  EXPECT_STREQ(problem_of(Leave{"cut \xe2\x82"}), drop::text);
  EXPECT_EQ(problem_of(grant_with({{"a.b", {{0, 2}, {2, 4}}}})), nullptr);
  EXPECT_STREQ(problem_of(grant_with({{"a.b", {{0, 2}, {1, 4}}}})), drop::range);
  EXPECT_STREQ(problem_of(grant_with({{"a.b", {{3, 2}}}})), drop::range);
  EXPECT_STREQ(problem_of(grant_with({{"a b", {{0, 2}}}})), drop::text);
  Hello hello;
  hello.held.resize(MessageLimits::held + 1);
  EXPECT_STREQ(problem_of(hello), drop::count);
}

TEST(Encode, CleansFreeTextSoThatBadNewsArrives) {
  const Result<Decoded> decoded =
      decode(encode({}, Rejected{{}, "bad\xff\nname", std::string(5000, 'r') + "\xc3\xa9", false}));
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  const auto& rejected = std::get<Rejected>(std::get<Message>(decoded->content));
  EXPECT_EQ(rejected.tensor, "bad??name");
  EXPECT_EQ(rejected.reason, std::string(MessageLimits::reason, 'r'));
}

TEST(Encode, AbortsOnWhatNoPeerWouldAccept) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(encode({}, Revoke{{-1}, {0}}), "Revoke that no peer would accept: number");
}

TEST(ChunkFrames, ComeBackAsTheyWere) {
  const ChunkRequest request{{1, 2}, 3};
  const ChunkHeader header{{1, 2}, 3, true, 4, 5};
  EXPECT_EQ(std::get<ChunkRequest>(decode(encode(request))->content), request);
  EXPECT_EQ(std::get<ChunkHeader>(decode(encode(header))->content), header);
}

}  // namespace
}  // namespace tessera
