// Schedules: values by hand, continuity, direction, ends.
#include "optim/schedule.h"

#include <gmock/gmock.h>
#include <tessera_plugins/schedules.h>

#include <cmath>
#include <map>

#include "optim/schedule_parts.h"

namespace tessera {
namespace {

/// Sets fields by name, as the recipe does.
class Setter final : public FieldVisitor {
 public:
  explicit Setter(std::map<std::string, std::string> values) : values_(std::move(values)) {}
  void field(const FieldInfo& info, std::int64_t& value) override {
    if (auto found = values_.find(info.name); found != values_.end()) value = std::stoll(found->second);
  }
  void field(const FieldInfo& info, double& value) override {
    if (auto found = values_.find(info.name); found != values_.end()) value = std::stod(found->second);
  }
  void field(const FieldInfo& info, std::string& value) override {
    if (auto found = values_.find(info.name); found != values_.end()) value = found->second;
  }
  void field(const FieldInfo&, bool&) override {}
  void field(const FieldInfo&, std::vector<double>&) override {}
  void field(const FieldInfo&, std::vector<std::string>&) override {}
  void group(const FieldInfo&, Settings&) override {}
  void choice(const FieldInfo&, std::string&, const SettingsCatalog&, std::unique_ptr<Settings>&) override {}

 private:
  std::map<std::string, std::string> values_;
};

std::unique_ptr<Schedule> make(const std::string& name, std::map<std::string, std::string> values,
                               std::int64_t horizon = 0) {
  const Registry<Schedule>& registry = Registry<Schedule>::builtin();
  const std::unique_ptr<Settings> settings = registry.make_settings(name);
  Setter setter(std::move(values));
  settings->fields(setter);
  EXPECT_TRUE(settings->problems().empty());
  return registry.make(name, *settings, {horizon});
}

TEST(Schedules, AreRegisteredUnderTheirFilesNames) {
  const std::vector<std::string> stems(std::begin(plugins::schedules), std::end(plugins::schedules));
  EXPECT_EQ(Registry<Schedule>::builtin().names(), stems);
}

TEST(Schedules, HaveTheValuesOfTheirFormulas) {
  const auto constant = make("constant", {{"warmup", "4"}});
  EXPECT_DOUBLE_EQ(constant->factor(0), 0.25);
  EXPECT_DOUBLE_EQ(constant->factor(3), 1);
  EXPECT_DOUBLE_EQ(constant->factor(1000000), 1);

  const auto linear = make("linear", {{"warmup", "10"}, {"horizon", "110"}, {"final", "0.2"}});
  EXPECT_DOUBLE_EQ(linear->factor(4), 0.5);
  EXPECT_DOUBLE_EQ(linear->factor(60), 0.6);
  EXPECT_DOUBLE_EQ(linear->factor(110), 0.2);

  const auto cosine = make("cosine", {{"warmup", "10"}, {"horizon", "110"}, {"final", "0.2"}});
  EXPECT_DOUBLE_EQ(cosine->factor(10), 1);
  EXPECT_NEAR(cosine->factor(35), 0.2 + 0.8 * (1 + std::sqrt(0.5)) / 2, 1e-15);
  EXPECT_NEAR(cosine->factor(60), 0.6, 1e-15);
  EXPECT_DOUBLE_EQ(cosine->factor(110), 0.2);

  const auto inverse = make("inverse_sqrt", {{"warmup", "100"}});
  EXPECT_DOUBLE_EQ(inverse->factor(24), 0.25);
  EXPECT_DOUBLE_EQ(inverse->factor(99), 1);
  EXPECT_DOUBLE_EQ(inverse->factor(399), 0.5);

  std::map<std::string, std::string> wsd_settings{
      {"warmup", "10"}, {"horizon", "200"}, {"decay", "0.25"}, {"final", "0"}};
  const auto wsd = make("wsd", wsd_settings);
  EXPECT_DOUBLE_EQ(wsd->factor(150), 1);
  EXPECT_DOUBLE_EQ(wsd->factor(175), 0.5);
  EXPECT_DOUBLE_EQ(wsd->factor(200), 0);
  wsd_settings["shape"] = "sqrt";
  EXPECT_DOUBLE_EQ(make("wsd", wsd_settings)->factor(162), 1 - std::sqrt(0.24));
}

TEST(Schedules, RiseThroughTheWarmupThenNeverRiseAgainAndNeverJump) {
  for (const std::string& name : Registry<Schedule>::builtin().names()) {
    SCOPED_TRACE(name);
    const std::int64_t warmup = 50, horizon = 1000;
    const auto schedule = make(name, {{"warmup", "50"}, {"final", "0.05"}}, horizon);
    EXPECT_DOUBLE_EQ(schedule->factor(0), 1.0 / warmup);
    EXPECT_DOUBLE_EQ(schedule->factor(warmup - 1), 1);
    for (std::int64_t step = 1; step < 2 * horizon; ++step) {
      const double change = schedule->factor(step) - schedule->factor(step - 1);
      if (step < warmup) {
        ASSERT_GT(change, 0) << step;
      } else {
        ASSERT_LE(change, 0) << step;
      }
      ASSERT_LT(std::abs(change), 0.03) << step;
    }
  }
}

TEST(Schedules, EndAtTheirFinalFractionAtTheRunsOrTheirOwnHorizon) {
  for (const std::string name : {"linear", "cosine", "wsd"}) {
    SCOPED_TRACE(name);
    const auto runs = make(name, {{"final", "0.25"}}, 400);
    const auto own = make(name, {{"final", "0.25"}, {"horizon", "300"}}, 400);
    EXPECT_DOUBLE_EQ(runs->factor(400), 0.25);
    EXPECT_GT(runs->factor(399), 0.25);
    EXPECT_DOUBLE_EQ(own->factor(300), 0.25);
    EXPECT_DOUBLE_EQ(own->factor(400), 0.25) << "held after the horizon";
    EXPECT_DOUBLE_EQ(make(name, {})->factor(1 << 20), 1) << "an unknown horizon is never approached";
  }
}

TEST(Schedules, RefuseAWarmupThatOutlastsTheHorizon) {
  HorizonSettings settings;
  settings.warmup = 300;
  settings.horizon = 300;
  EXPECT_THAT(settings.problems(), testing::ElementsAre(testing::HasSubstr("schedule.warmup = 300")));
}

}  // namespace
}  // namespace tessera
