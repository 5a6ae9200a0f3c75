// Streaming DiLoCo (arXiv 2501.18512): the parameters are synchronised in P fragments, one after the other,
// so that the wire never carries more than one at once; and a slot may work on for tau steps while its
// fragment is merged. Fragment p is merged by DiLoCo's outer step, at its own time of the H steps.
#include <algorithm>
#include <cctype>
#include <map>

#include "base/error.h"
#include "optim/outer_parts.h"

namespace tessera {
namespace {

struct StreamingSettings : Settings {
  std::int64_t fragments = 2;
  std::string pattern = "strided";
  std::int64_t tau = 0;
  double alpha = 0;
  void fields(FieldVisitor& f) override {
    f.field({"fragments", "parts that are synchronised one after the other within sync.steps",
             between(1, 100000)},
            fragments);
    f.field({"pattern",
             "strided: fragment p has layers p, p + P, ...; sequential: neighbouring layers; balanced: "
             "single tensors, so that fragments are as equal in bytes as can be",
             one_of({"strided", "sequential", "balanced"})},
            pattern);
    f.field({"tau", "inner steps that a slot goes on while a fragment is merged, before it adopts the result",
             at_least(0)},
            tau);
    f.field({"alpha",
             "what a slot keeps of its own values when it adopts: alpha own + (1 - alpha) merged; 1: the "
             "merge never reaches it",
             fraction()},
            alpha);
  }
};

/// "blocks.3" of "blocks.3.mlp.up": the layer that a parameter belongs to; empty: it is in none.
std::string layer_of(const std::string& param) {
  for (std::size_t begin = 0; begin < param.size();) {
    const std::size_t end = std::min(param.find('.', begin), param.size());
    const bool number = end > begin && std::all_of(param.begin() + static_cast<std::ptrdiff_t>(begin),
                                                   param.begin() + static_cast<std::ptrdiff_t>(end),
                                                   [](unsigned char c) { return std::isdigit(c) != 0; });
    if (number) return param.substr(0, end);
    begin = end + 1;
  }
  return {};
}

/// Deals parameters to fragments. `of[i]` is the fragment of the i-th spec.
class Dealer {
 public:
  Dealer(const std::vector<ParamSpec>& specs, std::int64_t fragments)
      : specs_(specs), load_(static_cast<std::size_t>(fragments)), of_(specs.size()) {}

  void give(std::size_t spec, std::size_t fragment) {
    of_[spec] = fragment;
    load_[fragment] += specs_[spec].elements();
  }
  /// The largest first, each to the fragment that has least; equal ones in the specs' order.
  void balance(std::vector<std::size_t> which) {
    std::stable_sort(which.begin(), which.end(), [&](std::size_t a, std::size_t b) {
      return specs_[a].elements() > specs_[b].elements();
    });
    for (std::size_t spec : which) {
      const auto lightest = std::min_element(load_.begin(), load_.end()) - load_.begin();
      give(spec, static_cast<std::size_t>(lightest));
    }
  }
  std::vector<std::vector<std::string>> names() const {
    std::vector<std::vector<std::string>> names(load_.size());
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      if (travels(specs_[i].role)) names[of_[i]].push_back(specs_[i].name);
    }
    return names;
  }

 private:
  const std::vector<ParamSpec>& specs_;
  std::vector<std::int64_t> load_;  ///< elements
  std::vector<std::size_t> of_;
};

std::vector<std::vector<std::string>> deal(const std::vector<ParamSpec>& specs, std::int64_t fragments,
                                           const std::string& pattern) {
  Dealer dealer(specs, fragments);
  std::map<std::string, std::size_t> layers;  // in the specs' order
  for (const ParamSpec& spec : specs) {
    const std::string layer = travels(spec.role) ? layer_of(spec.name) : std::string();
    if (!layer.empty()) layers.try_emplace(layer, layers.size());
  }
  const auto parts = static_cast<std::size_t>(fragments);
  std::vector<std::size_t> single;  // tensors that no layer holds together
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (!travels(specs[i].role)) continue;
    const auto layer = layers.find(layer_of(specs[i].name));
    if (pattern == "balanced" || layer == layers.end()) {
      single.push_back(i);
    } else {
      dealer.give(i, pattern == "strided" ? layer->second % parts : layer->second * parts / layers.size());
    }
  }
  dealer.balance(std::move(single));
  return dealer.names();
}

/// The global half of each fragment is DiLoCo's.
class Streaming final : public LikeDiLoCo {
 public:
  Streaming(const StreamingSettings& settings, const Context& context)
      : LikeDiLoCo(context),
        settings_(settings),
        steps_(context.steps),
        rotates_(context.rotates),
        fragments_(deal(context.specs, settings.fragments, settings.pattern)) {}

  std::vector<std::string> problems() const override {
    std::vector<std::string> found;
    auto say = [&](auto&&... parts) { found.push_back(detail::describe(parts...)); };
    const std::int64_t gap = steps_ / settings_.fragments;
    if (gap < 1) {
      say("outer.fragments = ", settings_.fragments, " are more than sync.steps = ", steps_,
          ": each fragment needs a step of its own");
    } else if (settings_.tau >= gap) {
      say("outer.tau = ", settings_.tau, " must be less than the ", gap,
          " steps from one fragment's merge to the next's (sync.steps / outer.fragments)");
    }
    const auto empty = std::count_if(fragments_.begin(), fragments_.end(),
                                     [](const auto& fragment) { return fragment.empty(); });
    if (empty > 0) {
      say("outer.fragments = ", settings_.fragments, " leaves ", empty,
          " of them empty: the model has too few ",
          settings_.pattern == "balanced" ? "tensors" : "layers; outer.pattern = \"balanced\" deals tensors");
    }
    if (settings_.alpha > 0 && rotates_) {
      say("outer.alpha = ", settings_.alpha,
          " does not go with partial.rotate_every: of rows that come to a slot it has no values of its own");
    }
    return found;
  }

  std::vector<std::vector<std::string>> fragments() const override { return fragments_; }
  /// Fragment p is adopted before the steps (p + 1) H / P, + H, ..., and pushed tau steps earlier.
  Due due(std::int64_t step) const override {
    Due due;
    for (std::int64_t p = 0; p < settings_.fragments; ++p) {
      const std::int64_t first = first_adoption(p);
      const auto is_time = [&](std::int64_t count) {
        return count >= first && (count - first) % steps_ == 0;
      };
      if (is_time(step)) due.adopt.push_back(static_cast<std::int32_t>(p));
      if (is_time(step + 1 + settings_.tau)) due.push.push_back(static_cast<std::int32_t>(p));
    }
    return due;
  }
  std::int64_t step_at(std::span<const std::int64_t> versions) const override {
    std::int64_t step = 0;
    for (std::size_t p = 0; p < versions.size(); ++p) {
      if (versions[p] > 0)
        step = std::max(step, first_adoption(static_cast<std::int64_t>(p)) + (versions[p] - 1) * steps_);
    }
    return step;
  }
  double own_share() const override { return settings_.alpha; }

 private:
  std::int64_t first_adoption(std::int64_t fragment) const {
    return (fragment + 1) * steps_ / settings_.fragments;
  }

  StreamingSettings settings_;
  std::int64_t steps_;
  bool rotates_;
  std::vector<std::vector<std::string>> fragments_;
};

}  // namespace

TESSERA_REGISTER(OuterMethod, streaming, Streaming, StreamingSettings,
                 "DiLoCo in fragments, each at its own time, merged while slots work on (arXiv 2501.18512)");

}  // namespace tessera
