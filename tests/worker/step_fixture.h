// Real steps of one slot of a small model, for tests that count what a step does.
#pragma once
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/random.h"
#include "coordinator/cost.h"
#include "coordinator/planner.h"
#include "tests/models/fixtures.h"
#include "worker/numerics.h"
#include "worker/torch_bridge.h"
#include "worker/trainer.h"

namespace tessera::testing {

/// Tokens drawn by (slot, position): every slot has its own stream.
class KeyedTokens final : public DataSource {
 public:
  KeyedTokens(std::int64_t vocab, std::int64_t length) : vocab_(vocab), length_(length) {}
  Status open() override { return {}; }
  std::string unit() const override { return "tokens"; }
  std::int64_t vocab() const override { return vocab_; }
  std::uint64_t samples() const override { return 1000; }
  Digest digest() const override { return {}; }
  Batch train(SlotId slot, std::uint64_t first, std::uint64_t count) const override {
    Batch batch;
    for (const char* name : {"tokens", "targets"}) {
      HostTensor tensor = HostTensor::empty(DType::i64, {static_cast<std::int64_t>(count), length_});
      KeyedRandom random(
          key_of({static_cast<std::uint64_t>(slot.value), first, static_cast<std::uint64_t>(name[1])}));
      for (auto& token : tensor.as<std::int64_t>())
        token = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(vocab_)));
      batch.tensors.emplace(name, tensor);
    }
    batch.units = static_cast<double>(count) * static_cast<double>(length_);
    return batch;
  }
  std::optional<Batch> held_out(std::uint64_t, std::uint64_t) const override { return std::nullopt; }

 private:
  std::int64_t vocab_, length_;
};

struct ConstantRate final : Schedule {
  double factor(std::int64_t) const override { return 1; }
};

/// A model's settings with another way through its blocks.
inline Json with_block(const char* model, const char* block) {
  Json json = Json::parse(model);
  json["block"] = block;
  return json;
}

/// A family, its plan among some slots, and a replica that their steps run on.
class Stepping {
 public:
  Stepping(const Json& model, const std::string& cut, std::int64_t slices, std::int64_t batch,
           std::int64_t vocab = 64)
      : family(make_plugin<Family>("gpt", model, {.vocab = vocab})),
        specs(family->specs()),
        shape(family->cost()),
        data(family->cost().outputs, shape.context),
        replica(*family),
        trainer({replica, *objective, rate, data},
                {.seed = 5, .batch = batch, .clip = {.mode = ClipSettings::Mode::local, .max_norm = 1.0}}) {
    prepare_numerics(1);
    PartialSettings partial;
    partial.cut = cut;
    partial.slices = slices;
    const auto slots = static_cast<std::int32_t>(std::max<std::int64_t>(2, slices));
    plan = PlanSchedule::make(specs, family->cuts(), partial, slots, shape)->at({0});
    const double tokens = static_cast<double>(batch * shape.context);
    settings = {.tokens_per_step = tokens,
                .sequences = static_cast<double>(batch),
                .objective = objective->memory(tokens, shape.outputs)};
    cost = cost_of(plan, specs, shape, settings);
    family->initialize(replica.params(), 3);
  }
  /// Steps of a slot that owns these rows; measure(run) is called with the replica at work for it.
  template <class Measure>
  void with_slot(const RowSet& owned, std::int32_t slot, Measure measure) {
    SlotRun run = make_run(owned, slot);
    replica.activate(run);
    measure(run);
    replica.release(run);
  }
  template <class Measure>
  void with_slot(std::int32_t slot, Measure measure) {
    with_slot(plan.owned_by(slot), slot, measure);
  }
  RowSet everything() const {
    RowSet rows;
    for (const ParamSpec& spec : specs) add_rows(rows, spec.name, {0, spec.rows()});
    return rows;
  }
  SlotRun make_run(const RowSet& owned, std::int32_t slot = 0) const {
    SlotRun run;
    run.slot = {slot};
    run.owned = owned;
    run.inner = make_plugin<InnerOptimizer>("adamw", {{"lr", 0.001}, {"weight_decay", 0.1}});
    return run;
  }
  Batch batch(std::int32_t slot) const {
    return data.train({slot}, 0, static_cast<std::uint64_t>(trainer.settings().batch));
  }
  at::Tensor loss(const NamedTensors& batch) {
    const Objective::Value value = (*objective)(family->forward(replica.params(), batch), batch);
    return value.sum.div(value.weight);
  }

  std::unique_ptr<Family> family;
  std::unique_ptr<Objective> objective = make_plugin<Objective>("cross_entropy", Json::object());
  std::vector<ParamSpec> specs;
  CostModel shape;
  KeyedTokens data;
  ConstantRate rate;
  Replica replica;
  Trainer trainer;
  Plan plan;
  CostSettings settings;
  CostReport cost;
};

}  // namespace tessera::testing
