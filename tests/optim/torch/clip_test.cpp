// Clipping by the norm of the owned pieces, and the optimizer that the coordinator steps on merged gradients.
#include <ATen/Functions.h>

#include "optim/grad_clip.h"
#include "optim/gradient_step.h"
#include "tests/models/fixtures.h"

namespace tessera {
namespace {

using namespace testing;
using Mode = ClipSettings::Mode;

std::vector<Piece> pieces_3_4() {  // norm 5 over 20 elements
  return {{"a", at::zeros({9}), at::ones({9})},
          {"b", at::zeros({2, 2}), at::full({2, 2}, 2.0)},
          {"c", at::zeros({7}), {}}};
}

TEST(Clip, LocalNormIsOverTheGivenPieces) {
  auto pieces = pieces_3_4();
  EXPECT_DOUBLE_EQ(clip_gradients(pieces, {Mode::local, 1.0}, 80), 5);
  EXPECT_NEAR(pieces[0].gradient[0].item<float>(), 0.2, 1e-6);
  EXPECT_NEAR(pieces[1].gradient[1][1].item<float>(), 0.4, 1e-6);
  EXPECT_NEAR(clip_gradients(pieces, {Mode::local, 1.0}, 80), 1, 1e-6)
      << "clipped gradients have the largest norm";
}

TEST(Clip, ScaledNormIsWhatTheWholeModelWouldHave) {
  auto pieces = pieces_3_4();
  EXPECT_DOUBLE_EQ(clip_gradients(pieces, {Mode::scaled, 1.0}, 80), 10);  // 5 sqrt(80 / 20)
  EXPECT_NEAR(pieces[0].gradient[0].item<float>(), 0.1, 1e-6);
}

TEST(Clip, SmallNormsOffAndNonFiniteOnesChangeNothing) {
  for (const ClipSettings settings : {ClipSettings{Mode::local, 5.1}, ClipSettings{Mode::off, 0.1}}) {
    auto pieces = pieces_3_4();
    EXPECT_DOUBLE_EQ(clip_gradients(pieces, settings, 80), 5);
    EXPECT_TRUE(pieces[0].gradient.eq(1).all().item<bool>());
  }
  auto pieces = pieces_3_4();
  pieces[1].gradient[0][0] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(std::isfinite(clip_gradients(pieces, {Mode::local, 1.0}, 80)));
  EXPECT_EQ(pieces[0].gradient[0].item<float>(), 1);
}

struct Halving final : Schedule {
  double factor(std::int64_t step) const override { return step == 0 ? 1 : 0.5; }
};

TEST(GradientStep, EqualsAnInnerOptimizerThatOwnsEverything) {
  const auto make = [] { return make_plugin<InnerOptimizer>("adamw", {{"lr", 0.02}}); };
  const auto stepper = make_gradient_step({make, std::make_shared<Halving>(), {Mode::local, 0.7}, 0});
  EXPECT_EQ(stepper->state_names(), (std::vector<std::string>{"exp_avg", "exp_avg_sq"}));
  const ParamSpec spec{.name = "w", .shape = {6}}, gain{.name = "gain", .shape = {2}, .decay = false};
  std::vector<float> theta{1, -2, 3, -4, 5, -6}, gains{1, 1}, m(6), v(6), gm(2), gv(2);
  const at::Tensor value = at::tensor(theta), gain_value = at::tensor(gains);
  const auto direct = make();
  for (std::int64_t i = 1; i <= 3; ++i) {
    const double x = static_cast<double>(i);
    const std::vector<double> delta{x, 0.5, 0.25, -1}, gain_delta{0.125, -x};
    std::vector<Update> updates(2);
    updates[0] = {&spec,
                  {2, 6},
                  std::span(theta).subspan(2),
                  delta,
                  {std::span(m).subspan(2), std::span(v).subspan(2)}};
    updates[1] = {&gain, {0, 2}, gains, gain_delta, {gm, gv}};
    stepper->apply(i, updates);
    const std::vector<Piece> pieces{{"w[2:6]", value.narrow(0, 2, 4), at::tensor(delta).to(at::kFloat)},
                                    {"gain", gain_value, at::tensor(gain_delta).to(at::kFloat), false}};
    clip_gradients(pieces, {Mode::local, 0.7}, 0);
    direct->step(pieces, i == 1 ? 0.02 : 0.01, i);
    EXPECT_TRUE(same_bits(at::tensor(theta), value));
    EXPECT_TRUE(same_bits(at::tensor(gains), gain_value));
  }
  EXPECT_TRUE(same_bits(at::tensor(v).narrow(0, 2, 4), direct->state().at("w[2:6]/exp_avg_sq")));
  EXPECT_EQ(v[0], 0) << "state of a row that was not updated";
}

}  // namespace
}  // namespace tessera
