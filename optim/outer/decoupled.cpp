// Decoupled DiLoCo (arXiv 2604.21428): streaming's fragments, but every slot keeps a clock of its own. In
// mode drop a fragment is merged when a few slots reported, after a wait that none of them notices; who comes
// later brings its change to the next merge, counted from the version that it started from, and takes
// whatever version is the newest when its own time to adopt has come. Mode exact waits for everybody.
#include <algorithm>
#include <cmath>

#include "optim/outer_parts.h"

namespace tessera {
namespace {

struct DecoupledSettings : Settings {
  std::int64_t fragments = 2;
  std::string pattern = "balanced";
  std::int64_t tau = 0;
  std::string merge = "radial";
  std::string weights = "tokens";
  double grace = 1;
  double grace_cap = 60;
  void fields(FieldVisitor& f) override {
    f.field({"fragments", "parts that are synchronised one after the other within sync.steps",
             between(1, 100000)},
            fragments);
    f.field({"pattern",
             "balanced: single tensors, so that fragments are as equal in bytes as can be; strided: fragment "
             "p has layers p, p + P, ...; sequential: neighbouring layers",
             one_of({"balanced", "strided", "sequential"})},
            pattern);
    f.field({"tau", "inner steps that a slot goes on while a fragment is merged, before it adopts the result",
             at_least(0)},
            tau);
    f.field({"merge",
             "radial: of each tensor the mean length of the changes and their mean direction, of embeddings "
             "the mean; mean: of all the mean",
             one_of({"radial", "mean"})},
            merge);
    f.field({"weights", "what a contribution counts: tokens: units x units per step; equal: all the same",
             one_of({"tokens", "equal"})},
            weights);
    f.field(
        {"grace",
         "mode drop: share of the time that slots have until they adopt that a merge with its quorum waits "
         "for more contributions; 0: none",
         at_least(0)},
        grace);
    f.field({"grace_cap", "mode drop: seconds that it waits at most", between(0, 1e7)}, grace_cap);
  }
};

/// Gives settings the values that fields of the same names have elsewhere.
class Copy final : public FieldVisitor {
 public:
  explicit Copy(DecoupledSettings from) : from_(std::move(from)) {}
  void field(const FieldInfo&, bool&) override {}
  void field(const FieldInfo& info, std::int64_t& value) override {
    if (info.name == "fragments") value = from_.fragments;
    if (info.name == "tau") value = from_.tau;
  }
  void field(const FieldInfo& info, double& value) override {
    if (info.name == "alpha") value = 0;  // else own values would be mixed with a merge that lacks them
  }
  void field(const FieldInfo& info, std::string& value) override {
    if (info.name == "pattern") value = from_.pattern;
  }
  void field(const FieldInfo&, std::vector<double>&) override {}
  void field(const FieldInfo&, std::vector<std::string>&) override {}
  void group(const FieldInfo&, Settings&) override {}
  void choice(const FieldInfo&, std::string&, const SettingsCatalog&, std::unique_ptr<Settings>&) override {}

 private:
  DecoupledSettings from_;
};

std::unique_ptr<OuterMethod> streaming(const DecoupledSettings& settings,
                                       const OuterMethod::Context& context) {
  const Registry<OuterMethod>& methods = Registry<OuterMethod>::builtin();
  const std::unique_ptr<Settings> chosen = methods.make_settings("streaming");
  Copy copy(settings);
  chosen->fields(copy);
  return methods.make("streaming", *chosen, context);
}

class Decoupled final : public OuterMethod {
 public:
  Decoupled(const DecoupledSettings& settings, const Context& context)
      : settings_(settings), asked_(context), streaming_(streaming(settings, context)) {}

  std::vector<std::string> problems() const override {
    std::vector<std::string> found = streaming_->problems();
    Refusals refusals("decoupled");
    const bool plain = settings_.merge == "mean" && settings_.weights == "equal";
    refusals.refuse(
        !plain && std::isnan(asked_.lr), "outer.lr = \"auto\"",
        "it is made for the plain mean of changes (outer.merge, outer.weights); give it a number");
    refusals.refuse(
        !plain && asked_.slices > 1 && std::isnan(asked_.cut ? asked_.cut->lr : asked_.lr),
        "outer.cut_lr = \"auto\"",
        "it is made for the plain mean of changes (outer.merge, outer.weights); give it a number");
    refusals.refuse(asked_.keeps_fast, "partial.owner_view = \"fast\"",
                    "slots bring changes, and owners would go on from their values");
    refusals.refuse(asked_.rotates, "partial.rotate_every",
                    "versions say who owns a slice, and here slots work on different ones");
    found.insert(found.end(), refusals.found().begin(), refusals.found().end());
    const std::int64_t quorum = asked_.quorum, slots = asked_.slots;
    if (asked_.drops && quorum > 1 && quorum < slots && slots <= settings_.fragments * (quorum - 1)) {
      found.push_back(
          detail::describe("sync.quorum = ", quorum, " is too much for ", slots,
                           " slots and outer.fragments = ", settings_.fragments,
                           ": each of them could wait for another fragment than the others, none of which "
                           "would reach it; set 1, or all slots"));
    }
    return found;
  }

  std::vector<std::vector<std::string>> fragments() const override { return streaming_->fragments(); }
  Due due(std::int64_t step) const override { return streaming_->due(step); }
  std::int64_t steps_per_merge() const override { return streaming_->steps_per_merge(); }
  std::int64_t step_at(std::span<const std::int64_t> versions) const override {
    return streaming_->step_at(versions);
  }

  bool takes_late() const override { return true; }
  std::optional<GraceWindow> grace() const override {
    return GraceWindow{settings_.grace, settings_.grace_cap, settings_.tau};
  }
  Payload payload() const override { return Payload::delta; }
  bool changes_pushes() const override { return true; }
  void push(const OwnRows& own) const override { bring_change(own); }

  bool weighs() const override { return true; }
  Influence influence(const Brought& brought) const override {
    if (settings_.weights == "equal") return {};
    const double steps = static_cast<double>(std::max<std::int64_t>(brought.steps, 1));
    return {.weight = brought.units * brought.units / steps, .scale = 1};
  }
  Blend blend(const ParamSpec& spec) const override {
    const bool looked_up = spec.shape.size() > 1 && spec.name.find("embed") != std::string::npos;
    return settings_.merge == "radial" && !looked_up ? Blend::radial : Blend::mean;
  }

  std::vector<std::string> state_names() const override { return streaming_->state_names(); }
  std::vector<std::string> cut_state_names() const override { return streaming_->cut_state_names(); }
  OuterReport apply(std::int64_t version, std::span<const Update> updates) const override {
    return streaming_->apply(version, updates);
  }

 private:
  DecoupledSettings settings_;
  Context asked_;
  std::unique_ptr<OuterMethod> streaming_;
};

}  // namespace

TESSERA_REGISTER(OuterMethod, decoupled, Decoupled, DecoupledSettings,
                 "streaming whose slots keep clocks of their own and are not waited for (arXiv 2604.21428)");

}  // namespace tessera
