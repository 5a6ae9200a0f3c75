// The texts of `tessera describe --new`. Each compiles as it is and passes the contract tests of its kind.
#include "launch/new_plugin.h"

namespace tessera {
namespace {

constexpr const char* optimizer_source =
    R"(// @name@: one line on what it does and where it comes from (paper, equation).
//   m = momentum m + (1 - momentum) g;   value = value - lr m
#include "base/fields.h"
#include "optim/inner_state.h"

namespace tessera {
namespace {

struct @Name@Settings final : Settings {
  double lr = 0.01, momentum = 0.9;

  void fields(FieldVisitor& f) override {
    f.field({"lr", "learning rate, before the schedule", at_least(0)}, lr);
    f.field({"momentum", "decay of the running mean of gradients", below_one()}, momentum);
  }
};

/// State per piece: "mean".
class @Name@ final : public MomentOptimizer {
 public:
  @Name@(const @Name@Settings& settings, const Context&) : s_(settings) {}

  void step(const std::vector<Piece>& pieces, double lr, std::int64_t /*step*/) override {
    for (const Piece& piece : pieces) {
      const at::Tensor mean = moment(piece, "mean");
      update_piece(piece, [&]<class T>(std::span<T> value, std::span<const T> gradient) {
        const auto rate = static_cast<T>(lr), mu = static_cast<T>(s_.momentum);
        const std::span<T> m = elements<T>(mean);
        for (std::size_t i = 0; i < value.size(); ++i) {
          m[i] = mu * m[i] + (1 - mu) * gradient[i];
          value[i] -= rate * m[i];
        }
      });
    }
  }
  double moments_per_parameter(bool /*hidden*/) const override { return 1; }
  double base_lr() const override { return s_.lr; }

 private:
  @Name@Settings s_;
};

TESSERA_REGISTER(InnerOptimizer, @name@, @Name@, @Name@Settings, "one line for `tessera describe optimizer`");

}  // namespace
}  // namespace tessera
)";

constexpr const char* optimizer_test =
    R"(// The optimizer @name@, by hand. The contract of all optimizers is tested in tests/optim/torch/.
#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include "optim/inner.h"

namespace tessera {
namespace {

TEST(@Name@, TakesTheStepsOfItsFormula) {
  const auto optimizer = Registry<InnerOptimizer>::builtin().make("@name@", {});
  const at::Tensor value = at::ones({2}), gradient = at::full({2}, 0.5);
  optimizer->step({{.name = "w", .value = value, .gradient = gradient}}, /*lr=*/0.1, /*step=*/1);
  EXPECT_FLOAT_EQ(value[0].item<float>(), 1 - 0.1 * 0.05);
  optimizer->step({{.name = "w", .value = value, .gradient = gradient}}, /*lr=*/0.1, /*step=*/2);
  EXPECT_FLOAT_EQ(value[1].item<float>(), 1 - 0.1 * 0.05 - 0.1 * 0.095);
}

}  // namespace
}  // namespace tessera
)";

constexpr const char* schedule_source =
    R"(// @name@: one line on its shape and where it comes from. With t = (s - warmup) / (horizon - warmup), held in [0, 1]:
//   factor(s) = warmup(s) (final + (1 - final) (1 - t)^power)
#include <cmath>

#include "optim/schedule.h"
#include "optim/schedule_parts.h"

namespace tessera {
namespace {

struct @Name@Settings final : HorizonSettings {
  double power = 2;

  void fields(FieldVisitor& f) override {
    HorizonSettings::fields(f);
    f.field({"power", "1 falls in a straight line, more falls sooner", positive()}, power);
  }
};

class @Name@ final : public Schedule {
 public:
  @Name@(const @Name@Settings& settings, const Context& context)
      : s_(settings), horizon_(settings.horizon > 0 ? settings.horizon : context.horizon) {}
  double factor(std::int64_t step) const override {
    const double left = std::pow(1 - progress(step, s_.warmup, horizon_), s_.power);
    return warmup_factor(step, s_.warmup) * (s_.final + (1 - s_.final) * left);
  }

 private:
  @Name@Settings s_;
  std::int64_t horizon_;
};

}  // namespace

TESSERA_REGISTER(Schedule, @name@, @Name@, @Name@Settings, "one line for `tessera describe schedule`");

}  // namespace tessera
)";

constexpr const char* schedule_test = R"(// The schedule @name@, by hand.
#include <gtest/gtest.h>

#include "optim/schedule.h"

namespace tessera {
namespace {

TEST(@Name@, FallsFromOneToItsFinalFraction) {
  const auto schedule = Registry<Schedule>::builtin().make("@name@", {.horizon = 100});
  EXPECT_DOUBLE_EQ(schedule->factor(0), 1);
  EXPECT_DOUBLE_EQ(schedule->factor(50), 0.1 + 0.9 * 0.25);
  EXPECT_DOUBLE_EQ(schedule->factor(100), 0.1);
  for (std::int64_t step = 0; step < 120; ++step) EXPECT_LE(schedule->factor(step + 1), schedule->factor(step)) << step;
}

}  // namespace
}  // namespace tessera
)";

constexpr const char* family_source =
    R"(// @name@: one line on the model and where it comes from. As it stands: every token predicts the next one through an MLP.
#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>

#include "base/random.h"
#include "models/family.h"
#include "models/layers/initial.h"
#include "models/layers/sliced_linear.h"

namespace tessera {
namespace {

struct @Name@Settings final : Settings {
  std::int64_t width = 64, hidden = 256, context = 128;

  void fields(FieldVisitor& f) override {
    f.field({"width", "size of a token's vector", at_least(1)}, width);
    f.field({"hidden", "hidden units", at_least(1)}, hidden);
    f.field({"context", "tokens per training sequence", at_least(1)}, context);
  }
};

class @Name@ final : public Family {
 public:
  @Name@(const @Name@Settings& settings, const Context& context) : s_(settings), vocab_(context.vocab) {}

  std::vector<ParamSpec> specs() const override {
    return {{.name = "embed.tokens", .shape = {vocab_, s_.width}},
            {.name = "mlp.up", .shape = {s_.hidden, s_.width}, .products = 1},
            {.name = "mlp.down", .shape = {s_.hidden, s_.width}, .products = 1},
            {.name = "head", .shape = {vocab_, s_.width}, .products = 1}};
  }
  /// Hidden unit u: row u of up and of down.
  std::vector<CutGroup> cuts() const override {
    return {{.name = "mlp", .kind = "mlp", .unit = "units", .units = s_.hidden, .members = {{.param = "mlp.up"}, {.param = "mlp.down"}}}};
  }
  CostModel cost() const override {
    return {.context = s_.context, .outputs = static_cast<double>(vocab_), .stages = {}};
  }
  void initialize(ParamStore& params, std::uint64_t seed) const override {
    for (auto& [name, parameter] : params.all()) fill_normal(parameter, name == "embed.tokens" ? 1.0 : 0.1, seed);
  }
  /// "tokens" [B, T] -> "logits" [B, T, vocab]
  NamedTensors forward(const ParamStore& params, const NamedTensors& batch) const override {
    const at::Tensor x = at::embedding(params["embed.tokens"].differentiable(), batch.at("tokens"));
    const at::Tensor y = linear_in(at::gelu(linear_out(x, params["mlp.up"])), params["mlp.down"]);
    return {{"logits", linear_out(x + y, params["head"])}};
  }
  NamedTensors example_batch(std::uint64_t seed) const override {
    KeyedRandom random(seed);
    const at::Tensor tokens = at::empty({2, 17}, at::kLong);
    for (std::int64_t i = 0; i < tokens.numel(); ++i) {
      tokens.mutable_data_ptr<std::int64_t>()[i] = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(vocab_)));
    }
    return {{"tokens", tokens.narrow(1, 0, 16).contiguous()}, {"targets", tokens.narrow(1, 1, 16).contiguous()}};
  }

 private:
  @Name@Settings s_;
  std::int64_t vocab_;
};

TESSERA_REGISTER(Family, @name@, @Name@, @Name@Settings, "one line for `tessera describe family`");

}  // namespace
}  // namespace tessera
)";

constexpr const char* family_test =
    R"(// The family @name@. The contract of all families is tested in tests/models/contract_test.cpp.
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include "models/family.h"

namespace tessera {
namespace {

TEST(@Name@, GivesLogitsForEveryToken) {
  const auto family = Registry<Family>::builtin().make("@name@", {.vocab = 11});
  ParamStore params(family->specs());
  family->initialize(params, 1);
  const at::Tensor logits = family->forward(params, family->example_batch(2)).at("logits");
  EXPECT_EQ(logits.sizes(), (std::vector<std::int64_t>{2, 16, 11}));
}

}  // namespace
}  // namespace tessera
)";

}  // namespace

const std::vector<PluginTemplate>& plugin_templates() {
  static const std::vector<PluginTemplate> templates = {
      {"optimizer", "optim/inner", "tests/optim/torch", "optim_torch_tests", optimizer_source,
       optimizer_test},
      {"schedule", "optim/schedules", "tests/optim", "optim_tests", schedule_source, schedule_test},
      {"family", "models/families", "tests/models", "models_tests", family_source, family_test},
  };
  return templates;
}

}  // namespace tessera
