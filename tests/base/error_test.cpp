// Results and errors, identities, registries, clocks: the ground that all rooms stand on.
#include "base/error.h"

#include <gmock/gmock.h>

#include <memory>
#include <set>

#include "base/clock.h"
#include "base/ids.h"
#include "base/registry.h"

namespace tessera {
namespace {

using testing::HasSubstr;

Result<int> half_of(int number) {
  if (number % 2) return fail(ExitCode::usage, number, " is odd");
  return number / 2;
}
Result<int> quarter_of(int number) {
  TESSERA_ASSIGN(const int half, half_of(number));
  return half_of(half);
}
Status all_even(std::initializer_list<int> numbers) {
  for (int number : numbers) TESSERA_TRY(half_of(number));
  return {};
}

TEST(Result, CarriesAValueOrTheSentenceThatTookItsPlace) {
  EXPECT_EQ(*quarter_of(12), 3);
  const Result<int> odd = quarter_of(6);
  ASSERT_FALSE(odd.ok());
  EXPECT_EQ(odd.error().message, "3 is odd");
  EXPECT_EQ(odd.error().code, ExitCode::usage);
  EXPECT_TRUE(all_even({2, 4}));
  EXPECT_EQ(all_even({2, 5, 7}).error().message, "5 is odd");
}

TEST(Result, HoldsWhatCanOnlyBeMoved) {
  Result<std::unique_ptr<int>> made = std::make_unique<int>(7);
  const std::unique_ptr<int> taken = std::move(made).value();
  EXPECT_EQ(*taken, 7);
}

TEST(Result, AbortsWhenAFailedOneIsUsed) {
  EXPECT_DEATH((void)half_of(3).value(), "value\\(\\) of a failed Result: 3 is odd");
}

TEST(Check, PrintsBothOperands) {
  const int slices = 3, slots = 2;
  EXPECT_DEATH(TESSERA_CHECK_LE(slices, slots), "slices <= slots with 3 and 2");
  EXPECT_DEATH(TESSERA_CHECK(slices < slots, ": too many for ", slots), "slices < slots: too many for 2");
  TESSERA_CHECK_EQ(slices, 3);
}

TEST(Bits128, ReadBackFromTheirHexText) {
  const Bits128 bits{0x0123456789abcdefull, 0xfedcba9876543210ull};
  EXPECT_EQ(bits.hex(), "0123456789abcdeffedcba9876543210");
  EXPECT_EQ(Bits128::from_hex(bits.hex()), bits);
  for (int i = 0; i < 100; ++i) {
    const Bits128 random = random_bits128();
    EXPECT_EQ(Bits128::from_hex(random.hex()), random);
  }
}

TEST(Bits128, RefuseOtherText) {
  for (const char* text : {"", "12", "0123456789abcdeffedcba987654321", "0123456789abcdeffedcba98765432100",
                           "0123456789abcdeffedcba987654321g", "-123456789abcdeffedcba9876543210"}) {
    EXPECT_FALSE(Bits128::from_hex(text)) << text;
  }
}

TEST(Bits128, FromTheSystemDiffer) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random_bits128().hex());
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(Ids, OfDifferentKindsDoNotMix) {
  static_assert(!std::is_convertible_v<SlotId, FragmentId>);
  static_assert(!std::is_convertible_v<SlotId, std::int32_t>);
  EXPECT_LT(SlotId{1}, SlotId{2});
  EXPECT_EQ(detail::describe(Attempt{3}), "3");
}

struct Greeting {
  using Context = std::string;
  static constexpr const char* kind = "greeting";
  virtual ~Greeting() = default;
  virtual std::string say() const = 0;
};
struct GreetingSettings : Settings {
  std::string mark = "!";
  void fields(FieldVisitor& f) override { f.field({"mark", "what it ends with"}, mark); }
};
struct Hello final : Greeting {
  Hello(const GreetingSettings& settings, const std::string& who) : text("hello " + who + settings.mark) {}
  std::string say() const override { return text; }
  std::string text;
};

Registry<Greeting> greetings() {
  Registry<Greeting> registry;
  registry.add("hello", {"says hello", [] { return std::make_unique<GreetingSettings>(); },
                         [](const Settings& settings, const std::string& who) -> std::unique_ptr<Greeting> {
                           return std::make_unique<Hello>(static_cast<const GreetingSettings&>(settings),
                                                          who);
                         }});
  return registry;
}

TEST(Registry, MakesAPlugInWithItsOwnSettings) {
  const Registry<Greeting> registry = greetings();
  EXPECT_EQ(registry.make("hello", std::string("slot"))->say(), "hello slot!");
  GreetingSettings settings;
  settings.mark = "?";
  EXPECT_EQ(registry.make("hello", settings, "slot")->say(), "hello slot?");
  EXPECT_EQ(registry.help("hello"), "says hello");
}

TEST(Registry, NamesTheNearestForAnUnknownOne) {
  Registry<Greeting> registry = greetings();
  EXPECT_FALSE(registry.has("helo"));
  const Error error = registry.unknown("helo");
  EXPECT_EQ(error.code, ExitCode::usage);
  EXPECT_EQ(error.message, "there is no greeting named 'helo'; did you mean 'hello'? Known: hello");
  EXPECT_THAT(registry.unknown("transformer").message, testing::Not(HasSubstr("did you mean")));
  EXPECT_DEATH((void)registry.help("helo"), "no greeting named helo");
  EXPECT_DEATH(registry.add("hello", {}), "two plug-ins of kind greeting named hello");
}

TEST(ManualClock, StandsStillUntilItIsMoved) {
  ManualClock clock;
  const Instant start = clock.now();
  EXPECT_EQ(clock.now(), start);
  clock.advance(from_seconds(1.5));
  EXPECT_DOUBLE_EQ(seconds(clock.now() - start), 1.5);
}

}  // namespace
}  // namespace tessera
