// SPARTA (OpenReview stFPf3gzq1): with every merge (sync.steps = 1: every step) the slots average a small
// random share of the coordinates and keep their own values of all others, which so stay near each other at
// a fraction of the bytes. Alone, or with DiLoCo: every `diloco_every`-th merge takes everything, and makes
// an outer step from where the last such merge arrived.
//
// Of every 1/share consecutive coordinates of a parameter one is drawn, by a key of seed, version and
// parameter: both sides know it, no index travels, and each merge has the same number of bytes. What nobody
// brings keeps its value in the coordinator, so that its parameters are made of values that are 1/share
// merges old on average (docs/methods.md).
#include <algorithm>

#include "base/random.h"
#include "optim/outer_parts.h"

namespace tessera {
namespace {

struct SpartaSettings : Settings {
  double share = 0.005;
  std::int64_t diloco_every = 0;
  void fields(FieldVisitor& f) override {
    f.field({"share",
             "of the coordinates that a merge averages; one of every 1/share, rounded",
             {.min = 1e-6, .max = 1}},
            share);
    f.field({"diloco_every",
             "merges from one that takes everything and makes DiLoCo's outer step to the next; 0: there is "
             "none",
             between(0, 1 << 30)},
            diloco_every);
  }
};

std::uint64_t key_of_name(const std::string& name) {
  std::uint64_t key = 0;
  for (const char c : name) key = mix64(key ^ static_cast<unsigned char>(c));
  return key;
}

class Sparta final : public OuterMethod {
 public:
  Sparta(const SpartaSettings& settings, const Context& context)
      : settings_(settings),
        stretch_(std::max<std::int64_t>(1, std::llround(1 / settings.share))),
        asked_(context),
        mean_(Registry<OuterMethod>::builtin().make("diloco", with_plain_step(context))),
        outer_(Registry<OuterMethod>::builtin().make("diloco", context)) {}

  std::vector<std::string> problems() const override {
    Refusals refusals("sparta");
    if (!has_diloco()) {
      refusals.refuse_outer_step(asked_, "with outer.diloco_every = 0 it takes means as they are", true);
    } else {
      const std::string why = "the merges between outer steps hide what it is made of; give it a number";
      refusals.refuse(std::isnan(asked_.lr), "outer.lr = \"auto\"", why);
      refusals.refuse(asked_.slices > 1 && asked_.cut && std::isnan(asked_.cut->lr),
                      "outer.cut_lr = \"auto\"", why);
    }
    refusals.refuse(asked_.keeps_fast, "partial.owner_view = \"fast\"",
                    "owners keep their values between full merges anyway");
    refusals.refuse(asked_.rotates, "partial.rotate_every",
                    "of rows that come to a slot it has no values of its own");
    return refusals.found();
  }

  std::vector<std::vector<std::string>> fragments() const override { return mean_->fragments(); }
  Due due(std::int64_t step) const override { return mean_->due(step); }
  std::int64_t steps_per_merge() const override { return mean_->steps_per_merge(); }

  double share() const override {
    if (stretch_ == 1) return 1;
    const double full = has_diloco() ? 1 / static_cast<double>(settings_.diloco_every) : 0;
    return full + (1 - full) / static_cast<double>(stretch_);
  }
  std::optional<Positions> coordinates(std::int64_t version, const ParamSpec& spec,
                                       Rows rows) const override {
    if (stretch_ == 1 || is_full(version) || spec.role != Role::weight) return std::nullopt;
    const std::int64_t begin = rows.begin * spec.row_size(), end = rows.end * spec.row_size(),
                       all = spec.elements();
    const std::uint64_t key =
        key_of({asked_.seed, static_cast<std::uint64_t>(version), key_of_name(spec.name)});
    Positions positions;
    for (std::int64_t s = begin / stretch_; s * stretch_ < end; ++s) {
      const std::int64_t first = s * stretch_, length = std::min(stretch_, all - first);
      const auto drawn = static_cast<std::uint64_t>(length);
      const std::int64_t at =
          first + static_cast<std::int64_t>(mix64(key ^ mix64(static_cast<std::uint64_t>(s))) % drawn);
      if (begin <= at && at < end) positions.push_back(at - begin);
    }
    return positions;
  }

  /// "drift": how far the merges since the last outer step have moved a parameter; behind the rule's own.
  std::vector<std::string> state_names() const override { return with_drift(outer_->state_names()); }
  std::vector<std::string> cut_state_names() const override { return with_drift(outer_->cut_state_names()); }

  OuterReport apply(std::int64_t version, std::span<const Update> updates) const override {
    if (!has_diloco()) return mean_->apply(version, updates);
    std::vector<Update> steps(updates.begin(), updates.end());
    for (Update& step : steps) step.products.reset();  // of another delta, beside another momentum
    if (!is_full(version)) {
      for (Update& step : steps) {
        for (std::size_t i = 0; i < step.delta.size(); ++i) {
          float& drift = step.state.back()[i];
          drift = static_cast<float>(static_cast<double>(drift) - step.delta[i]);
        }
        step.state.clear();  // the mean has none
      }
      return mean_->apply(version, steps);
    }
    std::vector<std::vector<double>> deltas;  // from where the last outer step arrived
    for (Update& step : steps) {
      const std::span<float> drift = step.state.back();
      std::vector<double>& delta = deltas.emplace_back(step.delta.begin(), step.delta.end());
      for (std::size_t i = 0; i < delta.size(); ++i) {
        delta[i] -= static_cast<double>(drift[i]);
        step.theta[i] =
            static_cast<float>(static_cast<double>(step.theta[i]) - static_cast<double>(drift[i]));
        drift[i] = 0;
      }
      step.delta = delta;
      step.state.pop_back();
    }
    return outer_->apply((version - 1) / settings_.diloco_every + 1, steps);
  }

 private:
  bool has_diloco() const { return settings_.diloco_every > 0; }
  bool is_full(std::int64_t version) const { return has_diloco() && version % settings_.diloco_every == 0; }
  std::vector<std::string> with_drift(std::vector<std::string> names) const {
    if (!has_diloco()) return {};
    names.push_back("drift");
    return names;
  }

  SpartaSettings settings_;
  std::int64_t stretch_;  ///< consecutive coordinates of which one is drawn
  Context asked_;
  std::unique_ptr<OuterMethod> mean_, outer_;
};

}  // namespace

TESSERA_REGISTER(OuterMethod, sparta, Sparta, SpartaSettings,
                 "every merge averages a random share of the coordinates, alone or with diloco (SPARTA)");

}  // namespace tessera
