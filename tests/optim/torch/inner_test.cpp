// Inner optimizers: PyTorch's trajectories, and what every registered one must do.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <tessera_plugins/inner.h>
#include <tessera_plugins/objectives.h>

#include "optim/inner_state.h"
#include "tests/models/fixtures.h"

namespace tessera {
namespace {

using namespace testing;

TEST(InnerOptimizer, TrajectoriesEqualPyTorch) {
  const Golden golden("optimizers.safetensors");
  for (const auto& [name, stored] : golden.settings.items()) {
    SCOPED_TRACE(name);
    Json settings = stored;
    const std::string kind = settings.at("name").get<std::string>();
    settings.erase("name");
    const at::Tensor gradients = golden.at(name + "/gradients"), values = golden.at(name + "/values");
    for (const auto& [type, operators] : {std::pair{at::kDouble, false}, std::pair{at::kFloat, false},
                                          std::pair{at::kDouble, true}, std::pair{at::kFloat, true}}) {
      SCOPED_TRACE(operators ? "as on other devices" : "own loops");
      const auto optimizer = make_plugin<InnerOptimizer>(kind, settings);
      if (operators) dynamic_cast<MomentOptimizer&>(*optimizer).use_operators();
      const at::Tensor value = values[0].to(type, false, /*copy=*/true);
      for (std::int64_t i = 0; i < gradients.size(0); ++i) {
        optimizer->step({{.name = "p", .value = value, .gradient = gradients[i].to(type), .hidden = true}},
                        optimizer->base_lr(), i + 1);
        // Newton and Schulz find no fixed point but a range: they let differences of rounding grow.
        const double slack = kind == "muon" ? 100 : 1;
        EXPECT_LT(relative_error(value, values[i + 1]), slack * (type == at::kDouble ? 1e-14 : 1e-6))
            << "step " << i + 1;
      }
    }
  }
}

/// Two pieces of one parameter and one that does not decay, with a gradient that depends on the step.
struct Pieces {
  at::Tensor whole = at::arange(24, at::kFloat).view({6, 4}).mul_(0.1), gain = at::ones({5});

  std::vector<Piece> at_step(std::int64_t step) const {
    const auto slope = [step](const at::Tensor& value) { return value.sin().mul(static_cast<double>(step)); };
    const at::Tensor a = whole.narrow(0, 0, 2), b = whole.narrow(0, 3, 3);
    return {{.name = "w[0:2]", .value = a, .gradient = slope(a), .hidden = true},
            {.name = "w[3:6]", .value = b, .gradient = slope(b), .hidden = true},
            {.name = "gain", .value = gain, .gradient = slope(gain), .decay = false}};
  }
};

Json settings_of(const std::string& name) {  // momentum is off by default, but its state is worth testing
  return name == "sgd" ? Json{{"momentum", 0.9}, {"weight_decay", 0.1}} : Json::object();
}

template <class Test>
void for_each_optimizer(Test test) {
  for (const std::string& name : Registry<InnerOptimizer>::builtin().names()) {
    SCOPED_TRACE(name);
    test([&] { return make_plugin<InnerOptimizer>(name, settings_of(name)); });
  }
}

TEST(InnerOptimizerContract, FilesAndRegisteredNamesAreTheSame) {
  const std::vector<std::string> inner(std::begin(plugins::inner), std::end(plugins::inner));
  EXPECT_EQ(inner, Registry<InnerOptimizer>::builtin().names());
  const std::vector<std::string> objectives(std::begin(plugins::objectives), std::end(plugins::objectives));
  EXPECT_EQ(objectives, Registry<Objective>::builtin().names());
}

TEST(InnerOptimizerContract, StateIsNamedByPieceAndAsLargeAsDeclared) {
  for_each_optimizer([](auto make) {
    const auto optimizer = make();
    EXPECT_TRUE(optimizer->state().empty());
    const Pieces pieces;
    const auto given = pieces.at_step(1);
    const at::Tensor gap = pieces.whole[2].clone();
    optimizer->step(given, 0.01, 1);
    std::int64_t state = 0;
    double declared = 0;
    for (const auto& [name, tensor] : optimizer->state()) {
      state += tensor.numel();
      const std::string piece = name.substr(0, name.find('/'));
      EXPECT_TRUE(std::any_of(given.begin(), given.end(), [&](const Piece& p) { return p.name == piece; }))
          << name;
    }
    for (const Piece& piece : given)
      declared += optimizer->moments_per_parameter(piece.hidden) * static_cast<double>(piece.value.numel());
    EXPECT_EQ(static_cast<double>(state), declared);
    EXPECT_TRUE(same_bits(gap, pieces.whole[2])) << "a row between the pieces moved";
  });
}

TEST(InnerOptimizerContract, SavedLoadedAndContinuedIsBitEqual) {
  for_each_optimizer([](auto make) {
    const Pieces whole, first;
    const auto a = make(), b = make(), restored = make();
    for (std::int64_t i = 1; i <= 5; ++i) a->step(whole.at_step(i), 0.01, i);
    for (std::int64_t i = 1; i <= 3; ++i) b->step(first.at_step(i), 0.01, i);
    restored->load(b->state());
    b->step(Pieces().at_step(9), 0.01, 9);  // the copies must not follow
    for (std::int64_t i = 4; i <= 5; ++i) restored->step(first.at_step(i), 0.01, i);
    EXPECT_TRUE(same_bits(whole.whole, first.whole));
    EXPECT_TRUE(same_bits(whole.gain, first.gain));
    const auto want = a->state(), got = restored->state();
    ASSERT_EQ(want.size(), got.size());
    for (const auto& [name, tensor] : want) EXPECT_TRUE(same_bits(tensor, got.at(name))) << name;
  });
}

TEST(InnerOptimizerContract, UndefinedGradientCountsAsZeroAndDecayIsOnlyWhereAllowed) {
  for_each_optimizer([](auto make) {
    const Pieces undefined, zero;
    const auto a = make(), b = make();
    for (std::int64_t i = 1; i <= 3; ++i) {
      auto without = undefined.at_step(i), with = zero.at_step(i);
      for (Piece& piece : without) piece.gradient = i == 2 ? at::Tensor() : piece.gradient;
      for (Piece& piece : with) piece.gradient = i == 2 ? at::zeros_like(piece.value) : piece.gradient;
      a->step(without, 0.01, i);
      b->step(with, 0.01, i);
    }
    EXPECT_TRUE(same_bits(undefined.whole, zero.whole));
    const Pieces fresh;
    auto pieces = fresh.at_step(1);
    pieces[2].gradient.reset();
    make()->step(pieces, 0.01, 1);
    EXPECT_TRUE(fresh.gain.eq(1).all().item<bool>()) << "decayed although it must not";
  });
}

TEST(CrossEntropy, CountsTargetsAndWeighsThem) {
  const auto objective = Registry<Objective>::builtin().make("cross_entropy", {});
  const at::Tensor logits = at::randn({2, 3, 5}),
                   targets = at::tensor({0L, -1L, 4L, 2L, -7L, 1L}).view({2, 3});
  const at::Tensor losses =
      -logits.log_softmax(-1).gather(-1, targets.clamp_min(0).unsqueeze(-1)).squeeze(-1);
  const auto plain = (*objective)({{"logits", logits}}, {{"targets", targets}});
  EXPECT_EQ(plain.weight, 4);
  EXPECT_NEAR(plain.sum.item<double>(), (losses * targets.ge(0)).sum().item<double>(), 1e-5);
  const at::Tensor weights = at::tensor({2.0, 9.0, 0.5, 0.0, 9.0, 1.0}).view({2, 3});
  const auto weighed = (*objective)({{"logits", logits}}, {{"targets", targets}, {"weights", weights}});
  EXPECT_EQ(weighed.weight, 3.5);
  EXPECT_NEAR(weighed.sum.item<double>(), (losses * weights * targets.ge(0)).sum().item<double>(), 1e-5);
}

}  // namespace
}  // namespace tessera
