// Asynchronous local SGD with delayed Nesterov (arXiv 2401.09135): every slot pushes at its own pace, and
// each contribution makes a version as it arrives. Plain momentum misleads there: it would be applied K times
// as often, to changes counted from older versions. So N arrivals are gathered first, g being a change:
//   D += g / N
//   every N-th arrival:  m = beta m + D;  theta -= eps ((1 - c N + c) beta m + g / N);  D = 0
//   any other:           theta -= eps (c beta m + g / N)
// The momentum of N arrivals is applied once, a share c of it with each of the others.
#include <cmath>

#include "optim/outer_parts.h"

namespace tessera {
namespace {

struct AsyncSettings : Settings {
  std::int64_t buffer = 0;
  double activation = 0;
  std::string staleness = "none";
  double staleness_power = 0.5;
  std::int64_t max_staleness = 0;
  bool dynamic_steps = false;
  std::int64_t least_steps = 1;
  void fields(FieldVisitor& f) override {
    f.field({"buffer", "arrivals N after which the outer momentum moves; 0: as many as there are slots",
             between(0, 100000)},
            buffer);
    f.field({"activation",
             "share c of the momentum that each arrival between two moves applies, up to 1/N; 0: all of it "
             "with the N-th",
             fraction()},
            activation);
    f.field({"staleness",
             "what a contribution counts that comes s versions late: none: the same; poly: (1 + s)^-a",
             one_of({"none", "poly"})},
            staleness);
    f.field({"staleness_power", "a of poly", at_least(0)}, staleness_power);
    f.field({"max_staleness", "contributions that come later by more versions count nothing; 0: all count",
             at_least(0)},
            max_staleness);
    f.field(
        {"dynamic_steps",
         "slower slots take fewer steps: sync.steps x their speed / that of the quickest, so that all bring "
         "equally often; the samples in between are left out"},
        dynamic_steps);
    f.field({"least_steps", "with dynamic_steps: but not fewer", at_least(1)}, least_steps);
  }
};

class Async final : public OuterMethod {
 public:
  Async(const AsyncSettings& settings, const Context& context)
      : settings_(settings),
        asked_(context),
        shared_{context.lr, context.rule == "sgd" ? 0 : context.momentum},
        cut_(context.cut.value_or(shared_)),
        shared_buffer_(settings.buffer > 0 ? settings.buffer : std::max(1, context.slots)),
        // Of N arrivals, one in so many is of an owner of a given slice.
        cut_buffer_(std::max<std::int64_t>(1, shared_buffer_ / std::max(1, context.slices))) {
    if (context.rule == "sgd") cut_.momentum = 0;
    for (const ParamSpec& spec : context.specs) {
      if (travels(spec.role)) names_.push_back(spec.name);
    }
  }

  std::vector<std::string> problems() const override {
    Refusals refusals("async");
    refusals.refuse(std::isnan(asked_.lr), "outer.lr = \"auto\"",
                    "it compares the changes of several slots, and here merges have one; give it a number");
    refusals.refuse(asked_.slices > 1 && std::isnan(cut_.lr), "outer.cut_lr = \"auto\"",
                    "it compares the changes of several slots, and here merges have one; give it a number");
    refusals.refuse(asked_.rule == "adam", "outer.rule = \"adam\"",
                    "its outer step is a delayed Nesterov step");
    refusals.refuse(asked_.restart_every != 0, "outer.restart_every",
                    "a merge is one slot's, not a round of all");
    refusals.refuse(asked_.keeps_fast, "partial.owner_view = \"fast\"",
                    "slots bring changes, and owners would go on from their values");
    refusals.refuse(asked_.rotates, "partial.rotate_every",
                    "versions say who owns a slice, and here slots work on different ones");
    refusals.refuse(asked_.quorum > 0, "sync.quorum",
                    "a merge is made of one contribution and waits for nobody");
    std::vector<std::string> found = refusals.found();
    if (settings_.dynamic_steps && settings_.least_steps > asked_.steps)
      found.push_back(detail::describe("outer.least_steps = ", settings_.least_steps,
                                       " are more than sync.steps = ", asked_.steps));
    if (settings_.activation * static_cast<double>(shared_buffer_) > 1)
      found.push_back(detail::describe("outer.activation = ", settings_.activation, " is more than 1/N of ",
                                       "the momentum, where N = ", shared_buffer_, " (outer.buffer)"));
    return found;
  }

  std::vector<std::vector<std::string>> fragments() const override { return {names_}; }
  Due due(std::int64_t step) const override {
    Due due;
    if (step > 0 && step % asked_.steps == 0) due.adopt = {0};
    if ((step + 1) % asked_.steps == 0) due.push = {0};
    return due;
  }
  std::int64_t steps_per_merge() const override { return asked_.steps; }
  /// Versions are the slots' together, steps each slot's own.
  std::int64_t step_at(std::span<const std::int64_t> versions) const override {
    return versions[0] / std::max(1, asked_.slots) * asked_.steps;
  }
  std::int32_t arrivals_per_merge() const override { return 1; }
  std::optional<DynamicSteps> dynamic_steps() const override {
    if (!settings_.dynamic_steps) return std::nullopt;
    return DynamicSteps{asked_.steps, settings_.least_steps};
  }
  Payload payload() const override { return Payload::delta; }
  bool changes_pushes() const override { return true; }
  void push(const OwnRows& own) const override { bring_change(own); }

  bool weighs() const override { return true; }
  Influence influence(const Brought& brought) const override {
    const bool too_late = settings_.max_staleness > 0 && brought.staleness > settings_.max_staleness;
    const double late = static_cast<double>(brought.staleness);
    const double scale = settings_.staleness == "poly" ? std::pow(1 + late, -settings_.staleness_power) : 1.0;
    return {.weight = 1, .scale = too_late ? 0 : scale};
  }

  std::vector<std::string> state_names() const override { return state_of(shared_, shared_buffer_); }
  std::vector<std::string> cut_state_names() const override { return state_of(cut_, cut_buffer_); }
  OuterReport apply(std::int64_t, std::span<const Update> updates) const override {
    for (const Update& update : updates) {
      const OuterStep& step = update.cut ? cut_ : shared_;
      const std::int64_t buffer = update.cut ? cut_buffer_ : shared_buffer_;
      decay_weights(step.lr * asked_.weight_decay / static_cast<double>(buffer), update);
      arrive(step, buffer, update);
    }
    return {.lr = shared_.lr, .cut_lr = cut_.lr};
  }

 private:
  /// A buffer of one needs no gathering: delayed Nesterov is then Nesterov.
  static std::vector<std::string> state_of(const OuterStep& step, std::int64_t buffer) {
    if (step.momentum == 0) return {};
    if (buffer == 1) return {"momentum"};
    return {"momentum", "gathered", "arrivals"};
  }

  void arrive(const OuterStep& step, std::int64_t buffer, const Update& update) const {
    const double n = static_cast<double>(buffer), c = std::min(settings_.activation, 1 / n);
    for (std::size_t i = 0; i < update.theta.size(); ++i) {
      const double share = update.delta[i] / n;
      double momentum = 0;  // as far as this arrival applies it
      if (step.momentum > 0) {
        float& m = update.state[0][i];
        // Each number has its own count: of what is cut, an arrival brings a part.
        float none = 0;
        float& gathered = buffer > 1 ? update.state[1][i] : none;
        float& arrivals = buffer > 1 ? update.state[2][i] : none;
        const double sum = static_cast<double>(gathered) + share;
        const bool moves = static_cast<std::int64_t>(arrivals) + 1 >= buffer;
        if (moves) m = static_cast<float>(step.momentum * static_cast<double>(m) + sum);
        gathered = moves ? 0 : static_cast<float>(sum);
        arrivals = moves ? 0 : arrivals + 1;
        momentum = (moves ? 1 - c * n + c : c) * step.momentum * static_cast<double>(m);
      }
      float& theta = update.theta[i];
      theta = static_cast<float>(static_cast<double>(theta) - step.lr * (momentum + share));
    }
  }

  AsyncSettings settings_;
  Context asked_;
  OuterStep shared_, cut_;
  std::int64_t shared_buffer_, cut_buffer_;
  std::vector<std::string> names_;
};

}  // namespace

TESSERA_REGISTER(OuterMethod, async, Async, AsyncSettings,
                 "each contribution is merged as it arrives, the momentum of N at once (arXiv 2401.09135)");

}  // namespace tessera
