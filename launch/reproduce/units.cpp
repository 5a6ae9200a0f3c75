#include "launch/reproduce/units.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "launch/config/outline.h"

namespace tessera {
namespace {

std::string join_name(const std::vector<std::string>& parts) {
  std::string name;
  for (const std::string& part : parts) name += (name.empty() ? "" : "-") + part;
  return name;
}

Unit report_unit(const std::string& arm, const CoverSpec& cover, std::int64_t seed) {
  return {join_name({arm, cover.size, cover.corpus, "seed" + std::to_string(seed)}),
          arm,
          cover.size,
          cover.corpus,
          "",
          seed,
          false};
}

using SaidByName = std::map<std::string, std::string>;

void lay_over(SaidByName& values, const Said& said) {
  for (const auto& [name, value] : said) values[name] = value;
}

/// A number that stays whole where it was whole: rounds and steps cannot be halves.
Status multiply(SaidByName& values, const std::string& name, double factor) {
  const auto found = values.find(name);
  if (found == values.end())
    return fail(ExitCode::usage, name, " is multiplied by ", factor,
                " but neither base.toml nor the size says it");
  char* end = nullptr;
  const double before = std::strtod(found->second.c_str(), &end), after = before * factor;
  if (*end != 0) return fail(ExitCode::usage, name, " = ", found->second, " is no number to multiply");
  if (found->second.find_first_of(".eE") != std::string::npos) {
    found->second = toml_text(after);
    return {};
  }
  if (std::abs(after - std::round(after)) > 1e-9 * std::max(1.0, std::abs(after)))
    return fail(ExitCode::usage, name, " = ", before, " times ", factor, " is ", after,
                ", not a whole number");
  found->second = toml_text(static_cast<std::int64_t>(std::llround(after)));
  return {};
}

}  // namespace

std::vector<Unit> tuning_units(const ExperimentSpec& spec, const ProfileSpec& profile, const ArmSpec& arm) {
  std::vector<Unit> units;
  for (const GridPoint& point : spec.points(arm.grid, profile)) {
    units.push_back({join_name({arm.name, profile.tuning_size, profile.tuning_corpus, "tune", point.name}),
                     arm.name, profile.tuning_size, profile.tuning_corpus, point.name, profile.tuning_seed,
                     false});
  }
  return units;
}

std::vector<Unit> units_of(const ExperimentSpec& spec, const ProfileSpec& profile) {
  std::vector<Unit> units;
  std::set<std::string> seen;
  const auto add = [&](const std::vector<Unit>& more) {
    for (const Unit& unit : more) {
      if (seen.insert(unit.name).second) units.push_back(unit);
    }
  };
  for (const CoverSpec& cover : profile.covers) {
    for (const std::string& name : cover.arms) {
      const ArmSpec& arm = *spec.arm(name);
      for (const std::string& other : arm.inherits) add(tuning_units(spec, profile, *spec.arm(other)));
      add(tuning_units(spec, profile, arm));
      for (const std::int64_t seed : cover.seeds) add({report_unit(name, cover, seed)});
    }
  }
  if (const RepeatSpec& repeat = profile.repeat; repeat.wanted) {
    Unit unit = report_unit(
        repeat.arm, {.name = "", .size = repeat.size, .corpus = repeat.corpus, .arms = {}, .seeds = {}},
        repeat.seed);
    unit.name += "-processes";
    unit.processes = true;
    add({unit});
  }
  return units;
}

Result<Composed> compose(const ExperimentSpec& spec, const ProfileSpec& profile, const Unit& unit,
                         const TunedPoint& tuned) {
  const ArmSpec& arm = *spec.arm(unit.arm);
  Composed composed;
  SaidByName values;
  lay_over(values, spec.base);
  lay_over(values, spec.size(unit.size)->settings);
  const CorpusSpec& corpus = *spec.corpus(unit.corpus);
  values["data.path"] = toml_text(corpus.path);
  lay_over(values, corpus.settings);
  for (const std::string& other : arm.inherits) {
    const std::optional<GridPoint> point = tuned(*spec.arm(other));
    if (!point) {
      composed.waits_for = other;
      return composed;
    }
    lay_over(values, point->settings);
  }
  lay_over(values, arm.settings);
  for (const auto& [name, factor] : arm.times) TESSERA_TRY(multiply(values, name, factor));
  if (unit.tuning()) {
    for (const GridPoint& point : spec.points(arm.grid, profile)) {
      if (point.name == unit.point) lay_over(values, point.settings);
    }
    TESSERA_TRY(multiply(values, "rounds", profile.tuning_budget));
  } else if (!arm.grid.empty()) {
    const std::optional<GridPoint> point = tuned(arm);
    if (!point) {
      composed.waits_for = arm.name;
      return composed;
    }
    lay_over(values, point->settings);
  }
  values["seed"] = std::to_string(unit.seed);
  SaidByName base;
  lay_over(base, spec.base);
  for (const auto& [name, value] : values) {
    composed.settings.emplace_back(name, value);
    const auto before = base.find(name);
    if (before == base.end() || before->second != value) composed.overrides.push_back(name + "=" + value);
  }
  return composed;
}

}  // namespace tessera
