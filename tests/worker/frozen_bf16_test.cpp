// Slots at work on a model that holds frozen rows in bf16 alone: bytes from the allocator, and the same bits
// as a model that holds everything in fp32 and rounds in its products.
#include "models/layers/fast_products.h"
#include "tests/models/forwarding_family.h"
#include "tests/worker/allocator_probe.h"
#include "tests/worker/step_fixture.h"

namespace tessera {
namespace {

using namespace testing;

constexpr const char* gelu_model =
    R"({"width": 64, "layers": 2, "heads": 8, "context": 32, "bias": true, "ffn": 208, "precision": "bf16"})";
constexpr const char* swiglu_model =
    R"({"width": 64, "layers": 2, "heads": 16, "kv_heads": 8, "context": 32, "tied": false, "ffn": 192,
        "positions": "rotary", "activation": "swiglu", "norm": "rmsnorm", "precision": "bf16"})";

struct Cut {
  const char* name;
  std::int64_t slices;
};
constexpr Cut cuts[] = {{"none", 1}, {"mlp", 2}, {"mlp", 8}, {"heads", 4}, {"mlp+heads", 4}, {"layer", 2}};

class FrozenBf16Slots : public ::testing::Test {
  void SetUp() override {
    if (!why_not(Precision::bf16).empty()) GTEST_SKIP() << why_not(Precision::bf16);
  }
};

/// Elements of matrices, and of vectors and tables.
struct Elements {
  std::int64_t matrices = 0, vectors = 0;
};
Elements elements_of(const std::vector<ParamSpec>& specs, const RowSet& owned) {
  Elements some;
  for (const ParamSpec& spec : specs) {
    (is_matrix(spec) ? some.matrices : some.vectors) +=
        static_cast<std::int64_t>(owned_elements(owned, spec));
  }
  return some;
}

TEST_F(FrozenBf16Slots, AllocatedBytesAreTwoForEveryElementAndFourteenMoreForEveryOwnedOne) {
  for (const char* model : {gelu_model, swiglu_model}) {
    for (const Cut& cut : cuts) {
      for (std::int32_t slot = 0; slot < std::max<std::int64_t>(2, cut.slices); ++slot) {
        SCOPED_TRACE(std::string(model) + " cut " + cut.name + " in " + std::to_string(cut.slices));
        const AllocatorProbe probe;
        Stepping s(Json::parse(model), cut.name, cut.slices, 2);
        const Elements all = elements_of(s.specs, s.everything()),
                       owned = elements_of(s.specs, s.plan.owned_by(slot));
        EXPECT_EQ(probe.alive(), 2 * all.matrices + 4 * all.vectors) << "before anybody owns anything";
        s.with_slot(slot, [&](SlotRun& run) {
          // 2 (1 - f) + 4 f of weights, 4 f of gradients, 8 f of moments: 2 + 14 f. Vectors and tables are
          // fp32.
          const std::int64_t weights = 2 * all.matrices + 2 * owned.matrices + 4 * all.vectors;
          EXPECT_EQ(probe.alive(), weights);
          ASSERT_TRUE(s.trainer.step(run).ok());
          s.replica.params().clear_gradients();
          const std::int64_t moments = 8 * (owned.matrices + owned.vectors),
                             arena = probe.alive() - weights - moments;
          EXPECT_GT(arena, 0);
          ASSERT_TRUE(s.trainer.step(run).ok());
          EXPECT_EQ(probe.alive() - arena,
                    2 * all.matrices + 14 * owned.matrices + 4 * all.vectors + 12 * owned.vectors);
          const StaticBytes& bytes = s.cost.slots[static_cast<std::size_t>(slot)].memory;
          EXPECT_EQ(bytes.weights, weights);
          EXPECT_EQ(bytes.weights + bytes.gradients + bytes.moments, probe.alive() - arena);
          s.replica.params().clear_gradients();
        });
      }
    }
  }
}

TEST_F(FrozenBf16Slots, PlanPredictsThePeakOfAStep) {
  for (const char* model : {gelu_model, swiglu_model}) {
    for (const Cut& cut : cuts) {
      for (const std::int64_t batch : {1, 8}) {
        AllocatorProbe probe;
        Stepping s(Json::parse(model), cut.name, cut.slices, batch, 300);
        s.with_slot(0, [&](SlotRun& run) {
          ASSERT_TRUE(s.trainer.step(run).ok());
          probe.restart();
          ASSERT_TRUE(s.trainer.step(run).ok());
          EXPECT_NEAR(s.cost.slots[0].peak / static_cast<double>(probe.peak()), 1, 0.01)
              << model << " cut " << cut.name << " in " << cut.slices << ", batch " << batch;
        });
      }
    }
  }
}

/// Several slots with rounds between them, on replicas that hold frozen rows one way or the other.
class Rounds {
 public:
  Rounds(const char* model, bool wide, const CutSettings& cut = {})
      : stepping_(Json::parse(model), "mlp+heads", 4, 2),
        wide_(*stepping_.family),
        replica_(wide ? static_cast<const Family&>(wide_) : *stepping_.family, cut),
        trainer_({replica_, *stepping_.objective, stepping_.rate, stepping_.data}, settings()) {
    ParamStore initial(stepping_.specs);
    stepping_.family->initialize(initial, 3);
    for (const auto& [name, parameter] : initial.all()) committed.emplace(name, host_copy(parameter.full));
    for (std::int32_t slot = 0; slot < 4; ++slot) {
      runs.push_back(stepping_.make_run(stepping_.plan.owned_by(slot), slot));
      runs.back().inner =
          make_plugin<InnerOptimizer>("adamw", {{"lr", 0.01}, {"weight_decay", 0.1}, {"eps", 1e-8}});
    }
  }
  static TrainerSettings settings() {
    return {.seed = 5, .batch = 2, .clip = {.mode = ClipSettings::Mode::local, .max_norm = 1.0}};
  }
  void adopt(const TensorMap* fast = nullptr) {
    for (SlotRun& run : runs) replica_.adopt(run, committed, fast);
  }
  void step(SlotRun& run) { ASSERT_TRUE(trainer_.step(run).ok()); }
  TensorMap own(SlotRun& run) {
    replica_.activate(run);
    return replica_.own_values();
  }
  /// Every committed element goes half of the way to what its last owner made of it.
  void merge() {
    for (SlotRun& run : runs) {
      for (const auto& [piece, tensor] : own(run)) {
        const PieceRows at = rows_of_piece(piece, tensor.shape[0]);
        const auto from = tensor.as<float>();
        HostTensor& whole = committed.at(at.param);
        whole = whole.clone();
        const auto to = whole.rows(at.rows).as<float>();
        for (std::size_t i = 0; i < to.size(); ++i) to[i] += (from[i] - to[i]) / 2;
      }
    }
  }
  Replica& replica() { return replica_; }
  const Stepping& stepping() const { return stepping_; }
  TensorMap committed;
  std::vector<SlotRun> runs;

 private:
  Stepping stepping_;
  HeldWide wide_;
  Replica replica_;
  Trainer trainer_;
};

TEST_F(FrozenBf16Slots, RoundsOfSlotsThatTakeTurnsAreTheBitsOfFp32Holding) {
  for (const char* model : {gelu_model, swiglu_model}) {
    for (const bool fast_view : {false, true}) {
      std::vector<TensorMap> states, values;
      for (const bool wide : {false, true}) {
        const Stepping plan(Json::parse(model), "mlp+heads", 4, 2);
        Rounds rounds(model, wide, {.params = plan.plan.cut_params(), .keeps_fast = fast_view});
        for (int round = 0; round < 3; ++round) {
          rounds.adopt();
          for (int step = 0; step < 2; ++step) {
            for (SlotRun& run : rounds.runs) rounds.step(run);
          }
          rounds.merge();
        }
        values.push_back(rounds.committed);
        for (SlotRun& run : rounds.runs)
          states.push_back(run.state({.step = run.step, .adopted = {{2}}, .pushed = {{2}}}));
      }
      EXPECT_TRUE(bit_equal(values[0], values[1])) << model;
      for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(bit_equal(states[i], states[i + 4])) << model << i;
    }
  }
}

TEST_F(FrozenBf16Slots, FrozenRowsAreTheRoundedVersionAndKeepTheirBitsUntilTheNext) {
  Rounds rounds(gelu_model, false);
  rounds.adopt();
  std::int64_t checked = 0;
  for (int step = 0; step < 3; ++step) {
    for (SlotRun& run : rounds.runs) {
      rounds.step(run);
      for (const auto& [name, parameter] : rounds.replica().params().all()) {
        const at::Tensor version = torch_view(rounds.committed.at(name));
        for (const HalfRows& half : parameter.halves) {
          EXPECT_TRUE(
              half.value.equal(version.narrow(0, half.rows.begin, half.rows.count()).to(at::kBFloat16)))
              << name;
          checked += half.value.numel();
        }
      }
    }
  }
  EXPECT_GT(checked, 100000);
}

/// bf16 has 8 bits: next to 1 it cannot tell 1.0039 from 1. Steps of 1e-4 must add up in the masters.
TEST_F(FrozenBf16Slots, TinyStepsAddUpInTheMasters) {
  const auto moved = [](bool round_every_step) {
    Stepping s(Json::parse(gelu_model), "mlp", 2, 2);
    SlotRun run = s.make_run(s.plan.owned_by(0));
    run.inner = make_plugin<InnerOptimizer>("adamw", {{"lr", 1e-4}, {"weight_decay", 0.0}});
    s.replica.activate(run);
    at::Tensor up = s.replica.params()["blocks.0.mlp.up"].leaves[0].value.detach();
    up.sign_();  // 1 and -1
    const at::Tensor start = up.clone();
    for (int step = 0; step < 10; ++step) {
      EXPECT_TRUE(s.trainer.step(run).ok());
      if (round_every_step) up.copy_(up.to(at::kBFloat16));
    }
    return (up - start).abs().mean().item<double>();
  };
  EXPECT_GT(moved(false), 2e-4);
  EXPECT_EQ(moved(true), 0) << "so the bound tells masters in fp32 from masters in bf16";
}

TEST_F(FrozenBf16Slots, ASlotWhoseRowsChangeAndThatIsSavedContinuesBitForBit) {
  const auto train = [](bool saved_on_the_way) {
    Rounds rounds(gelu_model, false);
    for (int round = 0; round < 3; ++round) {
      for (std::size_t i = 0; i < rounds.runs.size(); ++i) {  // slices wander
        SlotRun& run = rounds.runs[i];
        rounds.replica().rest(run);
        run.own(rounds.stepping().plan.owned_by(
                    static_cast<std::int32_t>(i + static_cast<std::size_t>(round)) % 4),
                run.step, rounds.stepping().specs);
      }
      rounds.adopt();
      for (SlotRun& run : rounds.runs) {
        rounds.step(run);
        rounds.step(run);
      }
      rounds.merge();
      if (!saved_on_the_way) continue;
      for (SlotRun& run : rounds.runs) {
        const TensorMap state = run.state({.step = run.step, .adopted = {{0}}, .pushed = {{0}}});
        SlotRun next = rounds.stepping().make_run(run.owned, run.slot.value);
        next.inner =
            make_plugin<InnerOptimizer>("adamw", {{"lr", 0.01}, {"weight_decay", 0.1}, {"eps", 1e-8}});
        EXPECT_TRUE(next.load(state).ok());
        rounds.replica().release(run);
        run = std::move(next);
      }
    }
    return rounds.committed;
  };
  EXPECT_TRUE(bit_equal(train(true), train(false)));
}

}  // namespace
}  // namespace tessera
