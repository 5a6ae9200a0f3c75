// Operations of real steps, counted from the operators that LibTorch executes, against the formula of
// reference/partial-updates-and-diloco.md, section 4.2.
#include <ATen/Functions.h>

#include "tests/worker/step_fixture.h"
#include "worker/operator_flops.h"

namespace tessera {
namespace {

using namespace testing;

const char* const models[] = {
    R"({"width": 16, "layers": 2, "heads": 8, "context": 12})",
    R"({"width": 64, "layers": 2, "heads": 16, "kv_heads": 8, "context": 10, "tied": false,
        "positions": "rotary", "activation": "swiglu", "norm": "rmsnorm", "ffn": 48})",
    R"({"width": 16, "layers": 1, "heads": 8, "context": 20, "bias": true, "ffn": 40, "vocab": 131})",
    R"({"width": 32, "layers": 3, "heads": 8, "kv_heads": 8, "context": 6, "tied": false, "activation": "swiglu",
        "bias": true})"};

double percent_off(double counted, double formula) {
  return 100 * std::abs(counted - formula) / formula;
}

/// Every model with every cut in so many slices.
template <class Test>
void for_each_cut(Test test) {
  for (const char* model : models) {
    for (const char* cut : {"none", "mlp", "heads", "mlp+heads", "layer", "tensor"}) {
      for (const std::int64_t slices : {1, 2, 4, 8}) {
        if (slices > 1 && std::string(cut) == "none") continue;
        if (slices > Json::parse(model).at("layers").get<std::int64_t>() && std::string(cut) == "layer")
          continue;
        if (slices > 4 && std::string(cut) == "tensor") continue;
        for (const char* block : {"plain", "fast"}) {
          SCOPED_TRACE(std::string(block) + " " + model + " cut " + cut + " in " + std::to_string(slices));
          Stepping stepping(with_block(model, block), cut, slices, 3);
          test(stepping);
        }
      }
    }
  }
}

/// What a step of a slot that owns these rows executes.
struct Counted {
  double forward = 0, total = 0;
};
Counted counted(Stepping& s, const RowSet& owned, std::int32_t slot = 0) {
  Counted counted;
  s.with_slot(owned, slot, [&](SlotRun& run) {
    const OperatorFlops flops;
    EXPECT_TRUE(s.trainer.step(run).ok());
    counted = {flops.forward(), flops.total()};
  });
  return counted;
}

TEST(Flops, CountedFromTheOperatorsEqualTheFormulaForEveryCutAndSlot) {
  for_each_cut([](Stepping& s) {
    const double formula_dense = s.cost.diloco.step.total();
    const Counted dense = counted(s, s.everything());
    EXPECT_LT(percent_off(dense.total, formula_dense), 0.5);
    double saved = 0;
    for (std::int32_t slot = 0; slot < s.plan.slots; ++slot) {
      SCOPED_TRACE("slot " + std::to_string(slot));
      const Counted step = counted(s, s.plan.owned_by(slot), slot);
      const double formula = s.cost.slots[static_cast<std::size_t>(slot)].step.total();
      EXPECT_LT(percent_off(step.total, formula), 0.5);
      EXPECT_EQ(step.forward, dense.forward) << "the forward pass is never cut";
      EXPECT_NEAR(100 * (1 - step.total / dense.total), 100 * (1 - formula / formula_dense), 0.5);
      saved += (1 - step.total / dense.total) / s.plan.slots;
    }
    EXPECT_NEAR(100 * saved, 100 * s.cost.flops_saved(), 0.5);
  });
}

/// Any set of rows: half of the embedding, some whole tensors, several ranges of one weight.
TEST(Flops, EqualTheFormulaForRowsThatNoCutWouldChoose) {
  const std::uint64_t seed = 20261126;
  SCOPED_TRACE("seed " + std::to_string(seed));
  KeyedRandom random(seed);
  for (const char* model : models) {
    for (int round = 0; round < 6; ++round) {
      Stepping s(with_block(model, round % 2 == 0 ? "plain" : "fast"), "none", 1, 2);
      RowSet owned;
      // Half of the embedding, always: below the lowest trained parameter autograd stops by itself, which the
      // formula says not to count.
      add_rows(owned, "embed.tokens", {0, 32});
      for (const ParamSpec& spec : s.specs) {
        if (spec.name == "embed.tokens") continue;
        const std::int64_t stride = 1 + spec.rows() / 4;
        for (std::int64_t begin = 0; begin < spec.rows(); begin += stride) {
          if (random.below(2) == 1)
            add_rows(owned, spec.name, {begin, std::min(spec.rows(), begin + stride / 2 + 1)});
        }
      }
      const double formula = step_flops(s.specs, owned, s.shape, s.settings.tokens_per_step).total();
      EXPECT_LT(percent_off(counted(s, owned).total, formula), 0.5) << "round " << round;
    }
  }
}

/// Masks are no products; attention to all positions has twice the pairs.
TEST(Flops, OfDropoutAndOfAttentionToAllPositionsEqualTheFormula) {
  for (const char* block : {"fast", "plain"}) {
    double total[2];
    for (const char* mask : {"causal", "none"}) {
      Json model = with_block(models[1], block);
      model["attention_mask"] = mask;
      if (std::string(block) == "fast") model["dropout"] = 0.2;
      Stepping s(model, "mlp+heads", 2, 3);
      const double step = counted(s, s.plan.owned_by(1), 1).total;
      EXPECT_LT(percent_off(step, s.cost.slots[1].step.total()), 0.5) << block << " " << mask;
      total[mask[0] == 'n'] = step;
    }
    EXPECT_GT(total[1], 1.02 * total[0]) << block;
  }
}

TEST(Flops, OfProductsByHand) {
  const at::Tensor a = at::ones({2, 3}), b = at::ones({3, 5}), batch = at::ones({4, 2, 3}),
                   bias = at::ones({5});
  const OperatorFlops flops;
  double expected = 0;
  const auto add = [&](double more) { EXPECT_EQ(flops.total(), expected += more); };
  at::mm(a, b), add(2 * 2 * 3 * 5);
  at::addmm(bias, a, b), add(2 * 2 * 3 * 5);
  at::matmul(batch, b), add(4 * 2 * 2 * 3 * 5);
  at::bmm(batch, batch.transpose(1, 2)), add(4 * 2 * 2 * 3 * 2);
  at::linear(a, b.t(), bias), add(2 * 2 * 3 * 5);
  at::mv(a, at::ones({3})), add(2 * 2 * 3);
  at::gelu(a) + a, add(0);
  // Two sequences, three heads, four positions of width 8: a product of all pairs is 2 x 2 x 3 x 4 x 4 x 8.
  at::Tensor q = at::ones({2, 3, 4, 8}).requires_grad_(true);
  at::Tensor y = at::scaled_dot_product_attention(q, q, q, {}, 0, /*is_causal=*/true);
  add(2 * 1536 / 2);
  EXPECT_EQ(flops.forward(), expected);
  y.sum().backward();
  add(4 * 1536 / 2);
  EXPECT_EQ(flops.backward(), 4 * 1536 / 2);
  at::scaled_dot_product_attention(q.detach(), q.detach(), q.detach(), {}, 0, /*is_causal=*/false);
  add(2 * 1536);
}

}  // namespace
}  // namespace tessera
