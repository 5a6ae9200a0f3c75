// Slots at work on a replica: taking turns changes no bit, frozen rows keep theirs, what is kept equals what
// is owned, and a saved slot goes on as if nothing had happened.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "models/batch_names.h"
#include "tests/models/forwarding_family.h"
#include "tests/worker/step_fixture.h"

namespace tessera {
namespace {

constexpr std::int64_t vocab = 17, context_length = 6;

/// A model with a replica, four slots that own half of every MLP each, and a trainer.
class Slots : public ::testing::Test {
 protected:
  Slots() : replica_(*family_), trainer_({replica_, *objective_, schedule_, data_}, settings()) {
    prepare_numerics(1);
    ParamStore initial(family_->specs());
    family_->initialize(initial, 3);
    for (const auto& [name, parameter] : initial.all()) start_.emplace(name, host_copy(parameter.full));
    PartialSettings partial;
    partial.cut = "mlp";
    partial.slices = 2;
    plan_ = *make_plan(family_->specs(), family_->cuts(), partial, 4);
  }
  static TrainerSettings settings() {
    return {.seed = 5, .batch = 3, .clip = {.mode = ClipSettings::Mode::local, .max_norm = 1.0}};
  }
  SlotRun make_run(std::int32_t slot) {
    SlotRun run;
    run.slot = {slot};
    run.owned = plan_.owned_by(slot);
    run.inner = testing::make_plugin<InnerOptimizer>("adamw", {{"lr", 0.01}, {"weight_decay", 0.1}});
    return run;
  }
  /// Own values of a slot that is trained alone for so many steps.
  TensorMap trained_alone(std::int32_t slot, int steps) {
    Replica replica(*family_);
    Trainer trainer({replica, *objective_, schedule_, data_}, settings());
    SlotRun run = make_run(slot);
    replica.adopt(run, start_);
    for (int i = 0; i < steps; ++i) EXPECT_TRUE(trainer.step(run).ok());
    return replica.own_values();
  }

  std::unique_ptr<Family> family_ = testing::make_plugin<Family>(
      "gpt",
      {{"width", 8}, {"layers", 2}, {"heads", 2}, {"ffn", 12}, {"context", context_length}, {"bias", true}},
      {.vocab = vocab});
  std::unique_ptr<Objective> objective_ =
      testing::make_plugin<Objective>("cross_entropy", testing::Json::object());
  testing::ConstantRate schedule_;
  testing::KeyedTokens data_{vocab, context_length};
  Replica replica_;
  Trainer trainer_;
  TensorMap start_;
  Plan plan_;
};

TEST_F(Slots, TakingTurnsOnOneReplicaChangesNoBit) {
  SlotRun runs[] = {make_run(0), make_run(1), make_run(2)};
  for (SlotRun& run : runs) replica_.adopt(run, start_);
  for (int step = 0; step < 3; ++step) {
    for (SlotRun& run : runs) ASSERT_TRUE(trainer_.step(run).ok());
  }
  for (SlotRun& run : runs) {
    replica_.activate(run);
    EXPECT_TRUE(bit_equal(replica_.own_values(), trained_alone(run.slot.value, 3))) << "slot " << run.slot;
  }
}

/// With a record of the keys from which its batches say to draw.
class KeyRecorder final : public testing::ForwardingFamily {
 public:
  using ForwardingFamily::ForwardingFamily;
  NamedTensors forward(const ParamStore& params, const NamedTensors& batch) const override {
    keys.push_back(*batch.at(batch_draws).const_data_ptr<std::int64_t>());
    return ForwardingFamily::forward(params, batch);
  }

  mutable std::vector<std::int64_t> keys;
};

TEST_F(Slots, WhatAStepDrawsFromIsAFunctionOfSeedSlotAndItsStep) {
  const auto keys = [&](std::uint64_t seed, std::vector<std::int32_t> slots) {
    const KeyRecorder family(*family_);
    Replica replica(family);
    TrainerSettings settings = Slots::settings();
    settings.seed = seed;
    Trainer trainer({replica, *objective_, schedule_, data_}, settings);
    std::map<std::int32_t, std::vector<std::int64_t>> by_slot;
    for (const std::int32_t slot : slots) {
      SlotRun run = make_run(slot);
      replica.adopt(run, start_);
      for (int i = 0; i < 3; ++i) EXPECT_TRUE(trainer.step(run).ok());
      by_slot[slot] = family.keys;
      family.keys.clear();
    }
    return by_slot;
  };
  const auto first = keys(5, {0, 1}), other = keys(6, {0, 1});
  EXPECT_EQ(first, keys(5, {1, 0})) << "whoever runs them, in whatever order";
  std::set<std::int64_t> distinct;
  for (const auto& run : {first, other}) {
    for (const auto& [slot, all] : run) distinct.insert(all.begin(), all.end());
  }
  EXPECT_EQ(distinct.size(), 12u);
}

/// Rows of a parameter that the replica shows now.
std::vector<float> shown(Replica& replica, const std::string& name, Rows rows) {
  const HostTensor now = host_copy(replica.params()[name].full).rows(rows);
  return {now.as<float>().begin(), now.as<float>().end()};
}

TEST_F(Slots, WithAFastViewAMergeLeavesTheOwnersCutRowsAlone) {
  const std::string up = "blocks.0.mlp.up",
                    q = "blocks.0.attention.q";  // slots 0 and 2 own rows 0 to 5 of up
  Replica replica(*family_, {.params = plan_.cut_params(), .keeps_fast = true});
  Trainer trainer({replica, *objective_, schedule_, data_}, settings());
  SlotRun first = make_run(0), second = make_run(1);
  for (SlotRun* run : {&first, &second}) {
    replica.adopt(*run, start_);
    ASSERT_TRUE(trainer.step(*run).ok());
  }
  TensorMap merged, fast;
  for (const auto& [name, tensor] : start_) {
    merged.emplace(name, tensor.clone());
    std::ranges::fill(merged.at(name).as<float>(), 7.0f);
    fast.emplace(name, tensor.clone());
    std::ranges::fill(fast.at(name).as<float>(), 9.0f);
  }
  replica.activate(first);
  const std::vector<float> own = shown(replica, up, {0, 6});
  replica.adopt(first, merged);  // in its place, and the second parked
  EXPECT_EQ(shown(replica, up, {0, 6}), own);
  EXPECT_EQ(shown(replica, up, {6, 12}), std::vector<float>(6 * 8, 7.0f));
  EXPECT_EQ(shown(replica, q, {0, 8}), std::vector<float>(8 * 8, 7.0f)) << "what all share is reset";
  replica.activate(second);
  const std::vector<float> others = shown(replica, up, {6, 12});
  replica.activate(first);
  replica.adopt(second, merged);
  replica.activate(second);
  EXPECT_EQ(shown(replica, up, {6, 12}), others);
  EXPECT_EQ(shown(replica, up, {0, 6}), std::vector<float>(6 * 8, 7.0f));
  for (SlotRun* run : {&first, &second}) {  // active, and parked
    replica.activate(second);
    replica.adopt(*run, merged, &fast);
    replica.activate(*run);
    const Rows mine = run == &first ? Rows{0, 6} : Rows{6, 12},
               theirs = run == &first ? Rows{6, 12} : Rows{0, 6};
    EXPECT_EQ(shown(replica, up, mine), std::vector<float>(6 * 8, 9.0f));
    EXPECT_EQ(shown(replica, up, theirs), std::vector<float>(6 * 8, 7.0f));
  }
}

TEST_F(Slots, TheRateOfWhatIsCutIsScaled) {
  const auto moved = [&](double scale, const std::string& name) {
    Replica replica(*family_, {.params = plan_.cut_params(), .lr_scale = scale});
    Trainer trainer({replica, *objective_, schedule_, data_}, settings());
    SlotRun run = make_run(0);
    replica.adopt(run, start_);
    EXPECT_TRUE(trainer.step(run).ok());
    return shown(replica, name, {0, 1})[0] - start_.at(name).as<float>()[0];
  };
  EXPECT_NEAR(moved(2, "blocks.0.mlp.up") / moved(1, "blocks.0.mlp.up"), 2, 1e-3);
  EXPECT_EQ(moved(2, "blocks.0.attention.q"), moved(1, "blocks.0.attention.q"));
}

TEST_F(Slots, FrozenRowsKeepTheirBitsThroughDecayAndClipping) {
  SlotRun run = make_run(1);
  replica_.adopt(run, start_);
  for (int step = 0; step < 4; ++step) ASSERT_TRUE(trainer_.step(run).ok());
  std::int64_t frozen = 0, moved = 0;
  for (const auto& [name, parameter] : replica_.params().all()) {
    const HostTensor now = host_copy(parameter.full);
    for (std::int64_t row = 0; row < parameter.spec.rows(); ++row) {
      bool owned = false;
      for (const Rows& rows : run.owned[name]) owned |= rows.begin <= row && row < rows.end;
      const HostTensor before = start_.at(name).rows({row, row + 1}), after = now.rows({row, row + 1});
      const bool same = bit_equal({{"row", before}}, {{"row", after}});
      EXPECT_TRUE(owned || same) << name << " row " << row;
      frozen += !owned;
      moved += owned && !same;
    }
  }
  EXPECT_GT(frozen, 0);
  EXPECT_GT(moved, 0);
}

TEST_F(Slots, GradientsAndMomentsAreKeptForOwnedRowsOnly) {
  SlotRun run = make_run(2);
  replica_.adopt(run, start_);
  ASSERT_TRUE(trainer_.step(run).ok());
  const std::int64_t owned = elements_in(run.owned, family_->specs());
  ASSERT_LT(owned, elements_in(plan_.owned_by(0), family_->specs()) +
                       elements_in(plan_.owned_by(1), family_->specs()));
  std::int64_t gradients = 0, moments = 0;
  for (const auto& [name, parameter] : replica_.params().all()) {
    EXPECT_FALSE(parameter.full.grad().defined()) << name;
    for (const Leaf& leaf : parameter.leaves) gradients += leaf.value.grad().storage().nbytes() / 4;
  }
  for (const auto& [name, tensor] : run.inner->state())
    moments += static_cast<std::int64_t>(tensor.storage().nbytes()) / 4;
  EXPECT_EQ(gradients, owned);
  EXPECT_EQ(moments, 2 * owned);
}

TEST_F(Slots, ASavedSlotContinuesBitForBit) {
  const TensorMap undisturbed = trained_alone(3, 5);
  SlotRun first = make_run(3);
  replica_.adopt(first, start_);
  for (int step = 0; step < 2; ++step) ASSERT_TRUE(trainer_.step(first).ok());
  const SlotProgress progress{.step = 2, .adopted = {{0}}, .pushed = {{-1}}};
  const TensorMap state = first.state(progress);
  TensorMap parameters = start_;
  for (auto& [name, tensor] : parameters) tensor = host_copy(replica_.params()[name].full);

  Replica other(*family_);
  Trainer trainer({other, *objective_, schedule_, data_}, settings());
  SlotRun second = make_run(3);
  const Result<SlotProgress> loaded = second.load(state);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_EQ(*loaded, progress);
  other.adopt(second, parameters);
  for (int step = 0; step < 3; ++step) ASSERT_TRUE(trainer.step(second).ok());
  EXPECT_TRUE(bit_equal(other.own_values(), undisturbed));
}

/// Rows of an MLP's weight that a slot owns, and everything shared.
RowSet with_units(RowSet owned, Rows units) {
  for (const char* param : {"blocks.0.mlp.up", "blocks.0.mlp.up_bias", "blocks.0.mlp.down"})
    owned[param] = {units};
  return owned;
}

std::map<std::string, std::vector<float>> moments_by_row(const SlotRun& run, const std::string& param) {
  std::map<std::string, std::vector<float>> rows;
  for (const auto& [name, tensor] : run.inner->state()) {
    if (!name.starts_with(param + "[") && !name.starts_with(param + "/")) continue;
    const std::size_t bracket = name.find('[');
    const std::int64_t first = bracket == std::string::npos ? 0 : std::stoll(name.substr(bracket + 1));
    for (std::int64_t row = 0; row < tensor.size(0); ++row) {
      const HostTensor values = host_copy(tensor).rows({row, row + 1});
      rows[std::to_string(first + row) + name.substr(name.rfind('/'))] = {values.as<float>().begin(),
                                                                          values.as<float>().end()};
    }
  }
  return rows;
}

TEST_F(Slots, RowsThatComeStartLikeTheFirstStepAndRowsThatStayKeepTheirMoments) {
  const std::string up = "blocks.0.mlp.up";
  const RowSet shared = plan_.owned_by(0);
  SlotRun run = make_run(0);
  run.owned = with_units(shared, {0, 8});
  replica_.adopt(run, start_);
  for (int step = 0; step < 5; ++step) ASSERT_TRUE(trainer_.step(run).ok());
  const auto before = moments_by_row(run, up);
  replica_.rest(run);
  run.own(with_units(shared, {4, 12}), run.step, family_->specs());
  const auto kept = moments_by_row(run, up);
  ASSERT_EQ(kept.size(), 2u * 4) << "rows 4 to 7, two moments each";
  for (const auto& [row, values] : kept) EXPECT_EQ(values, before.at(row)) << row;

  replica_.adopt(run, start_);
  ASSERT_TRUE(trainer_.step(run).ok());
  // The first step of AdamW moves every element by lr, whatever its gradient, and by decay: with the slot's
  // count in the bias correction it would be far less.
  const HostTensor after = host_copy(replica_.params()[up].full);
  double furthest_old = 0;
  for (std::int64_t row = 4; row < 12; ++row) {
    const auto then = start_.at(up).rows({row, row + 1}), now = after.rows({row, row + 1});
    for (std::size_t i = 0; i < then.as<float>().size(); ++i) {
      const double moved = std::abs(now.as<float>()[i] - then.as<float>()[i] * (1 - 0.01 * 0.1));
      if (row >= 8) {
        EXPECT_NEAR(moved, 0.01, 2e-4) << row;
      } else {
        furthest_old = std::max(furthest_old, std::abs(moved - 0.01));
      }
    }
  }
  EXPECT_GT(furthest_old, 1e-3) << "rows that stayed are past their first step";
}

TEST_F(Slots, HandedMomentsGoOnAsIfTheRowsHadAlwaysBeenThere) {
  const RowSet shared = plan_.owned_by(0);
  SlotRun giver = make_run(0), taker = make_run(0);
  giver.owned = with_units(shared, {0, 12});
  taker.owned = with_units(shared, {0, 6});
  for (SlotRun* run : {&giver, &taker}) {
    replica_.adopt(*run, start_);
    for (int step = 0; step < 3; ++step) ASSERT_TRUE(trainer_.step(*run).ok());
  }
  RowSet moving;
  for (const char* param : {"blocks.0.mlp.up", "blocks.0.mlp.up_bias", "blocks.0.mlp.down"})
    moving[param] = {{0, 12}};
  TensorMap handed = giver.moments_of("exp_avg", moving, family_->specs());
  handed.merge(giver.moments_of("exp_avg_sq", moving, family_->specs()));
  ASSERT_EQ(handed.size(), 6u);
  const auto own = moments_by_row(taker, "blocks.0.mlp.up"), given = moments_by_row(giver, "blocks.0.mlp.up");
  replica_.rest(taker);
  taker.own(with_units(shared, {4, 12}), taker.step, family_->specs(), handed);
  EXPECT_TRUE(taker.since.empty()) << "their count goes on";
  const auto now = moments_by_row(taker, "blocks.0.mlp.up");
  ASSERT_EQ(now.size(), 2u * 8);
  for (const auto& [row, values] : now)
    EXPECT_EQ(values, std::stoi(row) < 6 ? own.at(row) : given.at(row)) << row;
  replica_.adopt(taker, start_);
  ASSERT_TRUE(trainer_.step(taker).ok());
  EXPECT_EQ(taker.inner->state().count("blocks.0.mlp.up[4:12]/exp_avg"), 1u);
  EXPECT_EQ(taker.inner->state().size(), giver.inner->state().size()) << "no piece beside the joined one";
}

TEST_F(Slots, ASlotWhoseRowsChangedContinuesBitForBit) {
  const RowSet shared = plan_.owned_by(0);
  const auto train = [&](bool saved_on_the_way) {
    Replica replica(*family_);
    Trainer trainer({replica, *objective_, schedule_, data_}, settings());
    SlotRun run = make_run(0);
    run.owned = with_units(shared, {0, 8});
    replica.adopt(run, start_);
    for (int step = 0; step < 6; ++step) {
      if (step == 2 || step == 4) {
        replica.rest(run);
        run.own(with_units(shared, {step, 8 + step}), run.step, family_->specs());
        replica.adopt(run, start_);
      }
      EXPECT_TRUE(trainer.step(run).ok());
      if (!saved_on_the_way) continue;
      const TensorMap state = run.state({.step = run.step, .adopted = {{0}}, .pushed = {{0}}});
      TensorMap values = start_;
      for (auto& [name, tensor] : values) tensor = host_copy(replica.params()[name].full);
      SlotRun next = make_run(0);
      next.owned = run.owned;
      EXPECT_TRUE(next.load(state).ok());
      EXPECT_EQ(next.since, run.since);
      replica.release(run);
      run = std::move(next);
      replica.adopt(run, values);
    }
    EXPECT_EQ(run.since.at("blocks.0.mlp.up"), (std::map<Rows, std::int64_t>{{{8, 10}, 2}, {{10, 12}, 4}}));
    replica.activate(run);
    return replica.own_values();
  };
  EXPECT_TRUE(bit_equal(train(true), train(false)));
}

TEST_F(Slots, ResidualsStayWithTheirRowsAndAreSaved) {
  const std::string up = "blocks.0.mlp.up";
  const RowSet shared = plan_.owned_by(0);
  const std::int64_t width = 8;
  SlotRun run = make_run(0);
  run.owned = with_units(shared, {0, 8});
  std::vector<float> values(8 * width);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) + 1;
  run.residuals.emplace(up + "[0:8]", HostTensor::of<float>(DType::f32, {8, width}, values));
  run.own(with_units(shared, {4, 12}), 3, family_->specs());
  const HostTensor& moved = run.residuals.at(up + "[4:12]");
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_EQ(moved.as<float>()[i], i < 4 * width ? values[i + 4 * width] : 0.f)
        << "rows that came have none";
  EXPECT_FALSE(run.residuals.contains(up + "[0:8]"));

  const TensorMap state = run.state({.step = 3, .adopted = {{1}}, .pushed = {{0}}});
  EXPECT_TRUE(state.contains("feedback/" + up + "[4:12]"));
  SlotRun next = make_run(0);
  ASSERT_TRUE(next.load(state).ok());
  EXPECT_TRUE(bit_equal(next.residuals, run.residuals));
  next.residuals.at(up + "[4:12]").as<float>()[0] = 77;
  EXPECT_NE(state.at("feedback/" + up + "[4:12]").as<float>()[0], 77) << "a saved state is never written to";
}

TEST_F(Slots, AStateOfSomethingElseIsRefused) {
  SlotRun run = make_run(0);
  EXPECT_FALSE(run.load({}).ok());
  TensorMap state = run.state({.step = 0, .adopted = {{0}}, .pushed = {{-1}}});
  state.emplace("surprise", HostTensor::zeros(DType::f32, {1}));
  const Result<SlotProgress> loaded = run.load(state);
  ASSERT_FALSE(loaded.ok());
  EXPECT_NE(loaded.error().message.find("surprise"), std::string::npos);
}

TEST_F(Slots, AdoptingReplacesTheSlotsOwnValues) {
  SlotRun runs[] = {make_run(0), make_run(1)};
  for (SlotRun& run : runs) replica_.adopt(run, start_);
  for (SlotRun& run : runs) ASSERT_TRUE(trainer_.step(run).ok());
  for (SlotRun& run : runs) replica_.adopt(run, start_);  // one active, one parked
  for (SlotRun& run : runs) {
    replica_.activate(run);
    for (const auto& [name, parameter] : replica_.params().all()) {
      EXPECT_TRUE(bit_equal({{"p", host_copy(parameter.full)}}, {{"p", start_.at(name)}}))
          << name << " of slot " << run.slot;
    }
  }
}

}  // namespace
}  // namespace tessera
