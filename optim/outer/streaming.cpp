// Streaming DiLoCo (arXiv 2501.18512): the parameters are synchronised in P fragments, one after the other,
// so that the wire never carries more than one at once; and a slot may work on for tau steps while its
// fragment is merged. Fragment p is merged by DiLoCo's outer step, at its own time of the H steps.
#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/pieces.h"
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
             "single tensors, so that fragments are as equal in bytes as can be; slices: neighbouring slices "
             "of partial.cut in all parameters, and an equal share of what is not cut; rows: an equal share "
             "of every matrix",
             one_of({"strided", "sequential", "balanced", "slices", "rows"})},
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

/// Deals rows of parameters to fragments.
class Dealer {
 public:
  Dealer(const std::vector<ParamSpec>& specs, std::int64_t fragments)
      : specs_(specs), load_(static_cast<std::size_t>(fragments)), rows_(load_.size()) {}

  void give(const RowSet& rows, std::size_t fragment) {
    add_rows(rows_[fragment], rows);
    load_[fragment] += elements_in(rows, specs_);
  }
  /// The largest first, each to the fragment that has least; equal ones in the order given.
  void balance(std::vector<RowSet> which) {
    std::stable_sort(which.begin(), which.end(), [&](const RowSet& a, const RowSet& b) {
      return elements_in(a, specs_) > elements_in(b, specs_);
    });
    for (const RowSet& rows : which) {
      const auto lightest = std::min_element(load_.begin(), load_.end()) - load_.begin();
      give(rows, static_cast<std::size_t>(lightest));
    }
  }
  std::vector<std::vector<std::string>> pieces() const {
    std::vector<std::vector<std::string>> pieces;
    for (const RowSet& rows : rows_) pieces.push_back(pieces_of_rows(rows, specs_));
    return pieces;
  }

 private:
  const std::vector<ParamSpec>& specs_;
  std::vector<std::int64_t> load_;  ///< elements
  std::vector<RowSet> rows_;
};

using Deal = std::vector<std::vector<std::string>>;

/// Whole parameters: layers together where they are not dealt one by one.
Deal deal_tensors(const std::vector<ParamSpec>& specs, std::int64_t fragments, const std::string& pattern) {
  Dealer dealer(specs, fragments);
  std::map<std::string, std::size_t> layers;  // in the specs' order
  for (const ParamSpec& spec : specs) {
    const std::string layer = travels(spec.role) ? layer_of(spec.name) : std::string();
    if (!layer.empty()) layers.try_emplace(layer, layers.size());
  }
  const auto parts = static_cast<std::size_t>(fragments);
  std::vector<RowSet> single;  // tensors that no layer holds together
  for (const ParamSpec& spec : specs) {
    if (!travels(spec.role)) continue;
    const RowSet all{{spec.name, {{0, spec.rows()}}}};
    const auto layer = layers.find(layer_of(spec.name));
    if (pattern == "balanced" || layer == layers.end()) {
      single.push_back(all);
    } else {
      dealer.give(all, pattern == "strided" ? layer->second % parts : layer->second * parts / layers.size());
    }
  }
  dealer.balance(std::move(single));
  return dealer.pieces();
}

/// Rows: neighbouring slices of the cut together, and of every matrix that is not cut an equal share to each
/// fragment, so that none carries more than its part of what all slots send. Vectors are too short to divide.
Deal deal_rows(const std::vector<ParamSpec>& specs, std::int64_t fragments,
               const std::vector<RowSet>& slices) {
  Dealer dealer(specs, fragments);
  const auto parts = static_cast<std::size_t>(fragments);
  RowSet cut;
  for (std::size_t s = 0; s < slices.size(); ++s) {
    dealer.give(slices[s], s * parts / slices.size());
    add_rows(cut, slices[s]);
  }
  std::vector<RowSet> small;
  for (const ParamSpec& spec : specs) {
    if (!travels(spec.role)) continue;
    for (const auto& [name, ranges] : rows_without({{spec.name, {{0, spec.rows()}}}}, cut)) {
      for (const Rows& range : ranges) {
        if (spec.shape.size() < 2 || spec.role == Role::buffer || range.count() < fragments) {
          small.push_back({{name, {range}}});
          continue;
        }
        for (std::int64_t p = 0; p < fragments; ++p) {
          const Rows share{range.begin + p * range.count() / fragments,
                           range.begin + (p + 1) * range.count() / fragments};
          dealer.give({{name, {share}}}, static_cast<std::size_t>(p));
        }
      }
    }
  }
  dealer.balance(std::move(small));
  return dealer.pieces();
}

bool by_rows(const std::string& pattern) {
  return pattern == "rows" || pattern == "slices";
}

Deal deal(const StreamingSettings& settings, const OuterMethod::Context& context) {
  return by_rows(settings.pattern) ? deal_rows(context.specs, settings.fragments, context.slice_rows)
                                   : deal_tensors(context.specs, settings.fragments, settings.pattern);
}

/// The global half of each fragment is DiLoCo's.
class Streaming final : public LikeDiLoCo {
 public:
  Streaming(const StreamingSettings& settings, const Context& context)
      : LikeDiLoCo(context),
        settings_(settings),
        steps_(context.steps),
        slices_(static_cast<std::int64_t>(context.slice_rows.size())),
        rotates_(context.rotates),
        fragments_(deal(settings, context)) {}

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
          settings_.pattern == "balanced" ? "tensors"
          : by_rows(settings_.pattern)    ? "rows"
                                          : "layers; outer.pattern = \"balanced\" deals tensors");
    }
    if (settings_.pattern == "slices") refuse_slices(say);
    if (settings_.pattern == "rows" && slices_ > 0)
      say("outer.pattern = \"rows\" is for a model that is not cut; \"slices\" follows partial.cut");
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
  template <class Say>
  void refuse_slices(const Say& say) const {
    if (slices_ == 0) {
      say("outer.pattern = \"slices\" has none to follow, because partial.cut is \"none\"; \"rows\" divides "
          "a "
          "model that is not cut");
    } else if (slices_ % settings_.fragments != 0) {
      say("outer.fragments = ", settings_.fragments, " does not divide partial.slices = ", slices_,
          ", as outer.pattern = \"slices\" needs");
    }
    if (rotates_) {
      say("outer.pattern = \"slices\" does not go with partial.rotate_every: a slot would give its slice "
          "away "
          "at one time of the round and get the next at another, and own two or none in between");
    }
  }
  std::int64_t first_adoption(std::int64_t fragment) const {
    return (fragment + 1) * steps_ / settings_.fragments;
  }

  StreamingSettings settings_;
  std::int64_t steps_;
  std::int64_t slices_;  ///< of the cut; 0: there is none
  bool rotates_;
  std::vector<std::vector<std::string>> fragments_;
};

}  // namespace

TESSERA_REGISTER(OuterMethod, streaming, Streaming, StreamingSettings,
                 "DiLoCo in fragments, each at its own time, merged while slots work on (arXiv 2501.18512)");

}  // namespace tessera
