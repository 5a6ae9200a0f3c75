// What every registered family must do, whichever it is.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <tessera_plugins/families.h>

#include <set>

#include "models/layers/fast_products.h"
#include "optim/grad_clip.h"
#include "tests/models/count_products.h"
#include "tests/models/fixtures.h"

namespace tessera {
namespace {

using namespace testing;

struct Case {
  std::string family;
  Json settings;
};

/// Every registered family with its defaults, and further settings of some.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const std::string& name : Registry<Family>::builtin().names()) all.push_back({name, Json::object()});
  for (const char* settings : {
           R"({"width": 24, "layers": 2, "heads": 4, "kv_heads": 2, "context": 12, "tied": false,
               "positions": "rotary", "activation": "swiglu", "norm": "rmsnorm"})",
           R"({"width": 16, "layers": 1, "heads": 2, "bias": true, "context": 20})"}) {
    for (const char* block : {"fast", "plain"}) {
      all.push_back({"gpt", Json::parse(settings)});
      all.back().settings["block"] = block;
    }
    if (!why_not(Precision::bf16).empty()) continue;
    all.push_back({"gpt", Json::parse(settings)});
    all.back().settings["precision"] = "bf16";
  }
  all.push_back({"gpt", Json::parse(R"({"width": 24, "layers": 1, "heads": 4, "kv_heads": 2, "context": 12,
                "positions": "rotary", "activation": "swiglu", "bias": true, "adapter_rank": 3, "adapter_alpha": 6,
                "adapter_targets": "mlp+heads"})")});
  return all;
}

Trainee make(const Case& c, std::uint64_t seed = 7, at::ScalarType type = at::kFloat) {
  return Trainee(make_plugin<Family>(c.family, c.settings, {.vocab = 40}), seed, type);
}

constexpr const char* tensor_cut = "tensor";  // every second matrix, whole; no family declares it

/// All rows of all weights but, in every group of this kind, the second half of the units.
RowSet owned_rows(const Family& family, const std::string& kind) {
  RowSet all, cut;
  int matrices = 0;
  for (const ParamSpec& spec : family.specs()) {
    if (spec.role != Role::weight) continue;
    add_rows(all, spec.name, {0, spec.rows()});
    const bool dealt = spec.shape.size() >= 2 && !spec.name.starts_with("embed") && spec.name != "head";
    if (kind == tensor_cut && dealt && matrices++ % 2 == 0) add_rows(cut, spec.name, {0, spec.rows()});
  }
  for (const CutGroup& group : family.cuts()) {
    if (group.kind != kind) continue;
    for (const auto& [param, ranges] : group.rows_of(group.units / 2, group.units)) cut[param] = ranges;
  }
  return rows_without(all, cut);
}

std::set<std::string> kinds(const Family& family) {
  std::set<std::string> kinds{tensor_cut};
  for (const CutGroup& group : family.cuts()) kinds.insert(group.kind);
  return kinds;
}

/// Calls test(model, kind of cut) for every case and kind.
template <class Test>
void for_each_cut(Test test) {
  for (const Case& c : cases()) {
    for (const std::string& kind : kinds(*make(c).family)) {
      SCOPED_TRACE(c.family + " " + c.settings.dump() + " cut " + kind);
      test(c, kind);
    }
  }
}

/// The rows of a parameter that are not owned.
std::vector<at::Tensor> frozen_rows(const Parameter& parameter, const RowSet& owned) {
  std::vector<at::Tensor> frozen;
  std::int64_t done = 0;
  const auto found = owned.find(parameter.spec.name);
  const std::vector<Rows> ranges = found == owned.end() ? std::vector<Rows>{} : found->second;
  for (const Rows& rows : ranges) {
    if (rows.begin > done) frozen.push_back(parameter.full.narrow(0, done, rows.begin - done));
    done = rows.end;
  }
  if (done < parameter.spec.rows())
    frozen.push_back(parameter.full.narrow(0, done, parameter.spec.rows() - done));
  return frozen;
}

constexpr ClipSettings clip{.mode = ClipSettings::Mode::local, .max_norm = 0.5};

void step(Trainee& model, InnerOptimizer& optimizer, const NamedTensors& batch, std::int64_t step) {
  model.backward(batch);
  const auto pieces = model.pieces();
  clip_gradients(pieces, clip, 0);
  optimizer.step(pieces, 0.003, step);
}

std::unique_ptr<InnerOptimizer> adamw() {
  return make_plugin<InnerOptimizer>("adamw", {{"weight_decay", 0.1}});
}

std::unique_ptr<InnerOptimizer> momentum_sgd() {
  return make_plugin<InnerOptimizer>("sgd", {{"momentum", 0.9}, {"weight_decay", 0.1}});
}

TEST(FamilyContract, FilesAndRegisteredNamesAreTheSame) {
  const std::vector<std::string> stems(std::begin(plugins::families), std::end(plugins::families));
  EXPECT_EQ(stems, Registry<Family>::builtin().names());
}

TEST(FamilyContract, EveryParameterIsInitialisedUsedAndCutsFitIt) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.family + " " + c.settings.dump());
    Trainee model = make(c);
    for (auto& [name, parameter] : model.params.all()) parameter.full.fill_(std::nan(""));
    model.family->initialize(model.params, 7);
    model.params.set_all_trainable();
    at::manual_seed(5);
    for (auto& [name, parameter] : model.params.all()) {
      EXPECT_TRUE(parameter.full.isfinite().all().item<bool>()) << name;
      parameter.full.add_(at::randn_like(parameter.full), 0.01);  // zeros may hide others
    }
    model.backward(model.family->example_batch(1));
    for (const auto& [name, parameter] : model.params.all()) {
      if (parameter.spec.role != Role::weight) continue;
      ASSERT_TRUE(parameter.leaves[0].value.grad().defined()) << name;
      EXPECT_GT(parameter.leaves[0].value.grad().abs().sum().item<double>(), 0) << name;
    }
    std::set<std::pair<std::string, std::string>> members;
    for (const CutGroup& group : model.family->cuts()) {
      for (const auto& m : group.members) {
        const ParamSpec& spec = model.params[m.param].spec;
        const std::int64_t units = m.only_unit < 0 ? group.units : 1;
        EXPECT_LT(m.only_unit, group.units) << m.param;
        EXPECT_LE(m.offset + units * m.rows_per_unit, spec.rows()) << m.param;
        EXPECT_TRUE(members.insert({group.kind, m.param}).second)
            << m.param << " is cut twice by " << group.kind;
      }
    }
    const CostModel cost = model.family->cost();
    EXPECT_GT(cost.context, 0);
  }
}

TEST(FamilyContract, InitialValuesAreAFunctionOfSeedAndNameInBothPrecisions) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.family);
    const Trainee a = make(c), b = make(c), other = make(c, 8), wide = make(c, 7, at::kDouble);
    bool differs = false;
    for (const auto& [name, parameter] : a.params.all()) {
      EXPECT_TRUE(same_bits(parameter.full, b.params[name].full)) << name;
      EXPECT_TRUE(same_bits(parameter.full.to(at::kDouble), wide.params[name].full)) << name;
      differs |= !same_bits(parameter.full, other.params[name].full);
      ParamStore alone({parameter.spec});
      a.family->initialize(alone, 7);
      EXPECT_TRUE(same_bits(parameter.full, alone[name].full)) << name << " depends on other parameters";
      if (parameter.full.dim() < 2 || !parameter.full.any().item<bool>()) continue;
      for (const auto& [twin, same_shape] : a.params.all()) {
        EXPECT_EQ(same_bits(parameter.full, same_shape.full), twin == name)
            << name << " starts like " << twin;
      }
    }
    EXPECT_TRUE(differs);
  }
}

TEST(FamilyContract, LossIsFiniteAndFallsOnTheExampleBatch) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.family + " " + c.settings.dump());
    Trainee model = make(c);
    model.params.set_all_trainable();
    const auto optimizer = adamw();
    const NamedTensors batch = model.family->example_batch(3);
    const double before = model.loss(batch).item<double>();
    EXPECT_TRUE(std::isfinite(before));
    for (int i = 1; i <= 15; ++i) step(model, *optimizer, batch, i);
    EXPECT_LT(model.loss(batch).item<double>(), 0.9 * before);
  }
}

TEST(FamilyContract, UnitsOfACutTradePlacesWithoutChangingTheOutputs) {
  for_each_cut([](const Case& c, const std::string& kind) {
    Trainee model = make(c, 7, at::kDouble);
    at::manual_seed(4);
    for (auto& [name, parameter] : model.params.all())
      parameter.full.add_(at::randn_like(parameter.full), 0.1);
    const NamedTensors batch = model.family->example_batch(2),
                       before = model.family->forward(model.params, batch);
    for (const CutGroup& group : model.family->cuts()) {
      if (group.kind != kind) continue;
      for (const auto& m : group.members) {
        if (m.only_unit >= 0) continue;  // blocks have their places
        at::Tensor rows = model.params[m.param].full.narrow(0, m.offset, group.units * m.rows_per_unit);
        rows.copy_(rows.view({group.units, m.rows_per_unit, -1}).roll(1, 0).reshape(rows.sizes()));
      }
    }
    for (const auto& [name, output] : model.family->forward(model.params, batch)) {
      EXPECT_LT(relative_error(output, before.at(name)), 1e-10) << name << ": a unit is cut apart";
    }
  });
}

TEST(FamilyContract, SlicedRunEqualsFrozenMaskRun) {
  for_each_cut([](const Case& c, const std::string& kind) {
    Trainee sliced = make(c, 7, at::kDouble), masked = make(c, 7, at::kDouble);
    const RowSet owned = owned_rows(*sliced.family, kind);
    sliced.params.set_trainable(owned);
    masked.params.set_all_trainable();
    // Not Adam: it would blow up the rounding of gradients that are zero by nature (the bias of keys).
    const auto sliced_optimizer = momentum_sgd(), masked_optimizer = momentum_sgd();
    for (int i = 1; i <= 4; ++i) {
      const NamedTensors batch = sliced.family->example_batch(static_cast<std::uint64_t>(i));
      step(sliced, *sliced_optimizer, batch, i);
      masked.backward(batch);
      std::vector<std::pair<at::Tensor, at::Tensor>> kept;
      for (auto& [name, parameter] : masked.params.all()) {
        Parameter gradient{parameter.spec, parameter.leaves[0].value.grad(), {}};
        for (const at::Tensor& rows : frozen_rows(gradient, owned)) rows.zero_();
        for (const at::Tensor& rows : frozen_rows(parameter, owned)) kept.push_back({rows, rows.clone()});
      }
      const auto pieces = masked.pieces();
      clip_gradients(pieces, clip, 0);
      masked_optimizer->step(pieces, 0.003, i);
      for (auto& [rows, values] : kept) rows.copy_(values);
    }
    for (const auto& [name, parameter] : sliced.params.all()) {
      if (same_bits(parameter.full, masked.params[name].full)) continue;  // also where all are zero
      EXPECT_LT(relative_error(parameter.full, masked.params[name].full, 1e-6), 1e-10) << name;
    }
  });
}

TEST(FamilyContract, FrozenBytesStayBitIdenticalWhileTheOwnedOnesMove) {
  for_each_cut([](const Case& c, const std::string& kind) {
    Trainee model = make(c);
    const RowSet owned = owned_rows(*model.family, kind);
    model.params.set_trainable(owned);
    std::map<std::string, at::Tensor> before;
    std::int64_t frozen = 0;
    for (const auto& [name, parameter] : model.params.all()) before[name] = parameter.full.clone();
    const auto optimizer = adamw();
    for (int i = 1; i <= 3; ++i) step(model, *optimizer, model.family->example_batch(5), i);
    for (const auto& [name, parameter] : model.params.all()) {
      const auto now = frozen_rows(parameter, owned);
      const auto then = frozen_rows({parameter.spec, before[name], {}}, owned);
      for (std::size_t i = 0; i < now.size(); ++i) {
        EXPECT_TRUE(same_bits(now[i], then[i])) << name;
        frozen += now[i].numel();
      }
      if (owned.contains(name)) {
        EXPECT_FALSE(same_bits(parameter.full, before[name])) << name;
      }
    }
    EXPECT_GT(frozen, 0);
    std::int64_t state = 0;
    for (const auto& [name, tensor] : optimizer->state()) state += tensor.numel();
    EXPECT_EQ(state, 2 * elements_in(owned, model.family->specs())) << "optimizer state of frozen parameters";
  });
}

TEST(FamilyContract, NoProductIsComputedForFrozenWeights) {
  for_each_cut([](const Case& c, const std::string& kind) {
    Trainee model = make(c);
    const NamedTensors batch = model.family->example_batch(5);
    const auto multiplications = [&] {
      const at::Tensor loss = model.loss(batch);
      const ProductCount count;
      loss.backward();
      return count.multiplications();
    };
    model.params.set_all_trainable();
    const std::int64_t all = multiplications();
    const RowSet owned = owned_rows(*model.family, kind);
    model.params.set_trainable(owned);
    std::int64_t frozen = 0;
    for (const auto& [name, parameter] : model.params.all()) {
      if (parameter.full.dim() < 2) continue;
      for (const at::Tensor& rows : frozen_rows(parameter, owned)) frozen += rows.numel();
    }
    EXPECT_EQ(all - multiplications(), frozen * batch.at("targets").numel());
  });
}

TEST(FamilyContract, SavedLoadedAndContinuedRunIsBitEqual) {
  for_each_cut([](const Case& c, const std::string& kind) {
    Trainee whole = make(c), first = make(c), second = make(c, 99);
    const RowSet owned = owned_rows(*whole.family, kind);
    const auto a = adamw(), b = adamw(), restored = adamw();
    const auto run = [&](Trainee& model, InnerOptimizer& optimizer, int from, int to) {
      model.params.set_trainable(owned);
      for (int i = from; i <= to; ++i)
        step(model, optimizer, model.family->example_batch(static_cast<std::uint64_t>(i)), i);
    };
    run(whole, *a, 1, 5);
    run(first, *b, 1, 3);
    for (auto& [name, parameter] : second.params.all()) parameter.full.copy_(first.params[name].full);
    restored->load(b->state());
    run(second, *restored, 4, 5);
    for (const auto& [name, parameter] : whole.params.all()) {
      EXPECT_TRUE(same_bits(parameter.full, second.params[name].full)) << name;
    }
  });
}

TEST(GptSettings, WhatDoesNotFitIsSaidInSentences) {
  auto settings = Registry<Family>::builtin().make_settings("gpt");
  struct Set final : FieldVisitor {
    std::map<std::string, std::int64_t> values;
    void field(const FieldInfo& i, std::int64_t& v) override {
      if (values.contains(i.name)) v = values[i.name];
    }
    void field(const FieldInfo& i, std::string& v) override {
      if (i.name == "positions") v = "rotary";
    }
    void field(const FieldInfo&, bool&) override {}
    void field(const FieldInfo&, double&) override {}
    void field(const FieldInfo&, std::vector<double>&) override {}
    void field(const FieldInfo&, std::vector<std::string>&) override {}
    void group(const FieldInfo&, Settings&) override {}
    void choice(const FieldInfo&, std::string&, const SettingsCatalog&, std::unique_ptr<Settings>&) override {
    }
  } set;
  set.values = {{"width", 30}, {"heads", 10}, {"kv_heads", 4}};
  settings->fields(set);
  const auto problems = settings->problems();
  ASSERT_EQ(problems.size(), 2);
  EXPECT_THAT(problems[0], ::testing::HasSubstr("even head size"));
  EXPECT_THAT(problems[1], ::testing::HasSubstr("model.kv_heads = 4 does not divide model.heads = 10"));
  set.values = {{"width", 30}, {"heads", 15}, {"kv_heads", 5}, {"adapter_rank", 31}};
  settings->fields(set);
  ASSERT_EQ(settings->problems().size(), 1);
  EXPECT_THAT(settings->problems()[0], ::testing::HasSubstr("model.adapter_rank = 31 is more than 30"));
}

}  // namespace
}  // namespace tessera
