#include "coordinator/cuts.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "base/cost_model.h"
#include "base/error.h"
#include "base/text.h"

namespace tessera {
namespace {

constexpr const char* kTensor = "tensor";
constexpr const char* kAuto = "auto";

bool is_glob(const std::string& word) {
  return word.find_first_of("*?.") != std::string::npos;
}

std::string trimmed(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(' '), end = text.find_last_not_of(' ');
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

/// The words of partial.cut: kinds and globs, joined by '+' or ','.
std::vector<std::string> words_of(const std::string& cut) {
  std::vector<std::string> words;
  for (const std::string& list : split(cut, ',')) {
    for (const std::string& word : split(list, '+')) words.push_back(trimmed(word));
  }
  return words;
}

std::vector<std::string> trained_names(const std::vector<ParamSpec>& specs) {
  std::vector<std::string> names;
  for (const ParamSpec& spec : specs) {
    if (spec.role == Role::weight) names.push_back(spec.name);
  }
  return names;
}

/// For people who mistyped: the nearest name, and where nothing is near those that begin alike.
std::string names_like(const std::string& glob, const std::vector<std::string>& names) {
  const std::string near = nearest_name(glob, names);
  if (!near.empty()) return "the nearest is '" + near + "'";
  const auto common = [&glob](const std::string& name) {
    return std::mismatch(glob.begin(), glob.end(), name.begin(), name.end()).first - glob.begin();
  };
  std::vector<std::string> sorted = names;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](const auto& a, const auto& b) { return common(a) > common(b); });
  if (sorted.size() > 3) sorted.resize(3);
  return "there are '" + join(sorted, "', '") + "' and others";
}

/// The trained parameters that match a glob; a sentence when there are none.
std::set<std::string> matches(const std::string& setting, const std::string& glob,
                              const std::vector<ParamSpec>& specs, Sentences& wrong) {
  std::set<std::string> found;
  const std::vector<std::string> names = trained_names(specs);
  for (const std::string& name : names) {
    if (glob_matches(glob, name)) found.insert(name);
  }
  if (found.empty()) {
    wrong.push_back(setting + ": no trained parameter is named like '" + glob + "'; " +
                    names_like(glob, names) + ".");
  }
  return found;
}

/// What a tensor cut leaves to everybody unless the recipe says otherwise: vectors cost next to nothing, and
/// a vocabulary's table would fill a part alone.
bool shared_by_rule(const ParamSpec& spec) {
  if (spec.shape.size() < 2) return true;
  for (const std::string& word : split(spec.name, '.')) {
    if (word.starts_with("embed") || word == "head") return true;
  }
  return false;
}

struct Selection {
  std::set<std::string> kinds;    ///< of cut groups
  bool every_tensor = false;      ///< the word "tensor"
  std::set<std::string> by_name;  ///< what globs match
};

Selection selection_of(const std::vector<ParamSpec>& specs, const std::vector<CutGroup>& cuts,
                       const std::string& cut, Sentences& wrong) {
  Selection selection;
  if (cut == "none") return selection;
  std::set<std::string> kinds;
  for (const CutGroup& group : cuts) kinds.insert(group.kind);
  std::vector<std::string> known{"none"};
  known.insert(known.end(), kinds.begin(), kinds.end());
  known.push_back(kTensor);
  for (const std::string& word : words_of(cut)) {
    if (kinds.count(word)) {
      selection.kinds.insert(word);
    } else if (word == kTensor) {
      selection.every_tensor = true;
    } else if (is_glob(word)) {
      selection.by_name.merge(matches("partial.cut", word, specs, wrong));
    } else if (word == "none") {
      wrong.push_back("partial.cut = '" + cut + "' joins 'none' with a cut; use one or the other.");
    } else {
      const std::string near = nearest_name(word, known);
      wrong.push_back("partial.cut: this model has no cut named '" + word + "'" +
                      (near.empty() ? "." : "; did you mean '" + near + "'?") + " It can be cut by: " +
                      join(known, ", ") + ", or by globs of parameter names with a '*', '?' or '.'.");
    }
  }
  return selection;
}

std::set<std::string> shared_names(const std::vector<ParamSpec>& specs, const PartialSettings& settings,
                                   bool every_tensor, Sentences& wrong) {
  std::set<std::string> shared;
  for (const std::string& glob : settings.shared) {
    if (glob != kAuto) {
      shared.merge(matches("partial.shared", glob, specs, wrong));
    } else if (every_tensor) {
      for (const ParamSpec& spec : specs) {
        if (shared_by_rule(spec)) shared.insert(spec.name);
      }
    }
  }
  return shared;
}

/// The group without the members that are not cut, and the units that then still have something.
Divisible::Group reduced(CutGroup group, const std::set<std::string>& cuttable) {
  std::erase_if(group.members, [&](const CutGroup::Member& m) { return !cuttable.count(m.param); });
  std::set<std::int64_t> units;
  for (const CutGroup::Member& member : group.members) {
    if (member.only_unit >= 0) {
      units.insert(member.only_unit);
      continue;
    }
    for (std::int64_t unit = 0; unit < group.units; ++unit) units.insert(units.end(), unit);
    break;
  }
  return {std::move(group), {units.begin(), units.end()}};
}

void take(RowSet& taken, const RowSet& rows) {
  for (const auto& [param, ranges] : rows) {
    for (const Rows& range : ranges) add_rows(taken, param, range);
  }
}

// ---- dividing ----

bool are_equal(const std::vector<double>& shares) {
  return std::all_of(shares.begin(), shares.end(), [&](double share) { return share == shares.front(); });
}

/// Where the parts of `units` units end. Unequal shares: each part gets at least one unit, and what rounding
/// takes from it here (`owed`, in shares of a group) it gets in a later group.
std::vector<std::int64_t> ends_of(std::int64_t units, const std::vector<double>& shares,
                                  std::vector<double>& owed) {
  const auto n = static_cast<std::int64_t>(shares.size());
  std::vector<std::int64_t> ends;
  if (are_equal(shares)) {
    for (std::int64_t k = 1; k <= n; ++k) ends.push_back(k * units / n);
    return ends;
  }
  std::vector<std::int64_t> counts(n, 1);
  const auto missing = [&](std::int64_t k) {
    return (shares[k] + owed[k]) * static_cast<double>(units) - static_cast<double>(counts[k]);
  };
  for (std::int64_t left = units - n; left > 0; --left) {
    std::int64_t neediest = 0;
    for (std::int64_t k = 1; k < n; ++k) {
      if (missing(k) > missing(neediest)) neediest = k;
    }
    ++counts[neediest];
  }
  for (std::int64_t k = 0; k < n; ++k)
    owed[k] += shares[k] - static_cast<double>(counts[k]) / static_cast<double>(units);
  std::partial_sum(counts.begin(), counts.end(), std::back_inserter(ends));
  return ends;
}

void divide_group(const Divisible::Group& from, const std::vector<double>& shares, std::vector<double>& owed,
                  std::vector<PartSlice>& slices, std::set<std::string>& notes) {
  const CutGroup& group = from.group;
  const auto units = static_cast<std::int64_t>(from.units.size());
  std::int64_t begin = 0, fewest = units, most = 0;
  for (const std::int64_t end : ends_of(units, shares, owed)) {
    const std::int64_t first = from.units[begin], last = from.units[end - 1] + 1;
    Slice slice{.name = group.name + "/" + group.unit + "[" + std::to_string(first) + ":" +
                        std::to_string(last) + "]",
                .rows = group.rows_of(first, last),
                .owners = {}};
    const auto part = static_cast<std::int64_t>(slices.size());
    slices.push_back({std::move(slice), part});
    fewest = std::min(fewest, end - begin);
    most = std::max(most, end - begin);
    begin = end;
  }
  if (fewest == most || !are_equal(shares)) return;  // sized on purpose
  notes.insert(detail::describe("The ", units, " ", group.unit, " of ", group.kind, " are divided unevenly: ",
                                shares.size(), " slices of ", fewest, " to ", most, " ", group.unit, "."));
}

/// Largest first to the part that is the least full for its share; names decide between equals. No part stays
/// empty: its share is at least one tensor's (1/T), and were it passed over to the end, each other part j
/// would hold n_j tensors that fill at most share_j T of its smallest one, so that all n_j were less than T.
void deal_tensors(std::vector<ParamSpec> tensors, const std::vector<double>& shares,
                  std::vector<PartSlice>& slices, std::set<std::string>& notes) {
  std::sort(tensors.begin(), tensors.end(), [](const ParamSpec& a, const ParamSpec& b) {
    return a.elements() != b.elements() ? a.elements() > b.elements() : a.name < b.name;
  });
  std::vector<std::int64_t> held(shares.size(), 0);
  for (const ParamSpec& tensor : tensors) {
    std::size_t best = shares.size();
    double best_fill = 0;
    for (std::size_t k = 0; k < shares.size(); ++k) {
      const double fill = static_cast<double>(held[k] + tensor.elements()) / shares[k];
      if (best == shares.size() || fill < best_fill) best = k, best_fill = fill;
    }
    held[best] += tensor.elements();
    slices.push_back(
        {{tensor.name, {{tensor.name, {{0, tensor.rows()}}}}, {}}, static_cast<std::int64_t>(best)});
  }
  const auto [fewest, most] = std::minmax_element(held.begin(), held.end());
  if (*fewest == *most || !are_equal(shares)) return;
  notes.insert(detail::describe("The ", tensors.size(), " whole tensors of the cut are dealt unevenly: ",
                                shares.size(), " slices of ", format_count(static_cast<double>(*fewest)),
                                " to ", format_count(static_cast<double>(*most)), " parameters."));
}

}  // namespace

std::vector<ParamSpec> mark_frozen(std::vector<ParamSpec> specs, const PartialSettings& settings,
                                   Sentences& wrong) {
  std::set<std::string> frozen;
  for (const std::string& glob : settings.frozen) frozen.merge(matches("partial.frozen", glob, specs, wrong));
  for (ParamSpec& spec : specs) {
    if (frozen.count(spec.name)) spec.role = Role::frozen;
  }
  if (!frozen.empty() && trained_names(specs).empty()) {
    wrong.push_back("partial.frozen leaves nothing to train: it names all " + std::to_string(frozen.size()) +
                    " parameters of the model.");
  }
  return specs;
}

Divisible select_cut(const std::vector<ParamSpec>& specs, const std::vector<CutGroup>& cuts,
                     const PartialSettings& settings, Sentences& wrong) {
  Divisible divisible{.groups = {}, .tensors = {}, .specs = specs};
  const Selection selection = selection_of(specs, cuts, settings.cut, wrong);
  const std::set<std::string> shared = shared_names(specs, settings, selection.every_tensor, wrong);
  std::set<std::string> cuttable;
  for (const ParamSpec& spec : specs) {
    if (spec.role == Role::weight && !shared.count(spec.name)) cuttable.insert(spec.name);
  }
  RowSet taken;
  std::map<std::string, std::string> kind_of;
  for (const CutGroup& group : cuts) {
    if (!selection.kinds.count(group.kind)) continue;
    Divisible::Group left = reduced(group, cuttable);
    if (left.units.empty()) continue;
    const RowSet rows = left.group.rows_of(0, group.units), twice = common_rows(rows, taken);
    if (!twice.empty()) {
      const std::string& param = twice.begin()->first;
      wrong.push_back("partial.cut = '" + settings.cut + "' divides " + param + " twice, as '" +
                      kind_of[param] + "' and as '" + group.kind + "'; use one of them.");
      return divisible;
    }
    for (const auto& [param, ranges] : rows) kind_of[param] = group.kind;
    take(taken, rows);
    divisible.groups.push_back(std::move(left));
  }
  for (const ParamSpec& spec : specs) {
    if (!cuttable.count(spec.name)) continue;
    const bool named = selection.by_name.count(spec.name);
    if (named && taken.count(spec.name)) {
      wrong.push_back("partial.cut = '" + settings.cut + "' divides " + spec.name + " twice, as '" +
                      kind_of[spec.name] + "' and as a whole tensor; use one of them.");
      return divisible;
    }
    if (named || (selection.every_tensor && !taken.count(spec.name))) divisible.tensors.push_back(spec);
  }
  if (settings.cut != "none" && divisible.empty() && wrong.empty()) {
    wrong.push_back("partial.cut = '" + settings.cut +
                    "' divides nothing: partial.shared and partial.frozen name all that it would divide.");
  }
  return divisible;
}

std::int64_t Divisible::most_parts() const {
  std::int64_t most = std::numeric_limits<std::int64_t>::max();
  for (const Group& group : groups) most = std::min(most, static_cast<std::int64_t>(group.units.size()));
  if (!tensors.empty()) most = std::min(most, static_cast<std::int64_t>(tensors.size()));
  return most;
}

double Divisible::products() const {
  double products = 0;
  for (const Group& from : groups) {
    const RowSet rows = from.group.rows_of(0, from.group.units);
    for (const ParamSpec& spec : specs) products += spec.products * owned_elements(rows, spec);
  }
  for (const ParamSpec& tensor : tensors)
    products += tensor.products * static_cast<double>(tensor.elements());
  return products;
}

std::vector<PartSlice> divide(const Divisible& divisible, const std::vector<double>& shares,
                              std::vector<std::string>& notes) {
  TESSERA_CHECK_LE(static_cast<std::int64_t>(shares.size()), divisible.most_parts());
  std::vector<PartSlice> slices;
  std::set<std::string> said;  // once for all layers that are alike
  std::vector<double> owed(shares.size(), 0);
  for (const Divisible::Group& group : divisible.groups) {
    std::vector<PartSlice> parts;
    divide_group(group, shares, owed, parts, said);
    std::move(parts.begin(), parts.end(), std::back_inserter(slices));
  }
  if (!divisible.tensors.empty()) deal_tensors(divisible.tensors, shares, slices, said);
  notes.insert(notes.end(), said.begin(), said.end());
  return slices;
}

}  // namespace tessera
