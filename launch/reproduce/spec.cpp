#include "launch/reproduce/spec.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/text.h"
#include "launch/reproduce/toml_reader.h"

namespace tessera {
namespace {

Result<std::string> text_of_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail(ExitCode::usage, "there is no ", path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

template <class Spec>
const Spec* find_named(const std::vector<Spec>& all, const std::string& name) {
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Spec& spec) { return spec.name == name; });
  return found == all.end() ? nullptr : &*found;
}

template <class Spec>
std::vector<std::string> names_of(const std::vector<Spec>& all) {
  std::vector<std::string> names;
  for (const Spec& spec : all) names.push_back(spec.name);
  return names;
}

class ExperimentReader {
 public:
  ExperimentReader(ExperimentSpec& spec, std::vector<std::string>& problems)
      : spec_(spec), problems_(problems) {}

  void read(TomlTable root) {
    spec_.title = root.needed_text("title");
    spec_.paper = root.text("paper", "");
    spec_.reference = root.needed_text("reference");
    spec_.flops_per_second = root.number("flops_per_second", spec_.flops_per_second);
    spec_.limit_minutes = root.number("limit_minutes", spec_.limit_minutes);
    for (auto& [name, table] : root.tables("sizes")) {
      spec_.sizes.push_back({name, table.text("label", name), table.settings("set")});
      table.refuse_the_rest();
    }
    for (auto& [name, table] : root.tables("data")) {
      spec_.corpora.push_back({name, table.text("label", name), table.text("script", ""),
                               table.needed_text("path"), table.settings("set")});
      table.refuse_the_rest();
    }
    for (auto& [name, table] : root.tables("grids")) {
      for (const auto& [point, settings] : table.named_settings())
        spec_.grids[name].push_back({point, settings});
    }
    for (auto& [name, table] : root.tables("arms")) read_arm(name, table);
    for (auto& [name, table] : root.tables("profiles")) read_profile(name, table);
    for (auto& [name, table] : root.tables("plots")) read_plot(name, table);
    root.refuse_the_rest();
    check_arms(root);
    known(root, "reference", spec_.reference, names_of(spec_.arms));
  }

 private:
  void read_arm(const std::string& name, TomlTable& table) {
    ArmSpec arm;
    arm.name = name;
    arm.label = table.text("label", name);
    arm.settings = table.settings("set");
    for (const auto& [setting, factor] : table.settings("times")) {
      char* end = nullptr;
      arm.times[setting] = std::strtod(factor.c_str(), &end);
      if (*end != 0 || !(arm.times[setting] > 0))
        table.problem("times." + setting + " wants a positive number");
    }
    arm.grid = table.text("grid", "");
    arm.inherits = table.texts("inherits");
    arm.alone = table.flag("alone", false);
    arm.report = table.flag("report", true);
    arm.same_tokens = table.flag("same_tokens", true);
    table.refuse_the_rest();
    spec_.arms.push_back(std::move(arm));
  }

  void check_arms(TomlTable& root) {
    std::vector<std::string> earlier, grids;
    for (const auto& [name, points] : spec_.grids) grids.push_back(name);
    for (const ArmSpec& arm : spec_.arms) {
      if (!arm.grid.empty()) known(root, "arms." + arm.name + ".grid", arm.grid, grids);
      // Only earlier arms can be inherited from, so that no circle of tuning can be written.
      for (const std::string& other : arm.inherits)
        known(root, "arms." + arm.name + ".inherits", other, earlier);
      earlier.push_back(arm.name);
    }
  }

  void read_profile(const std::string& name, TomlTable& table) {
    ProfileSpec profile;
    profile.seeds = table.whole_numbers("seeds");
    if (profile.seeds.empty()) table.problem("needs seeds = [1, 2, 3]");
    profile.tuning_seed = static_cast<std::int64_t>(table.number("tuning_seed", 100));
    profile.tuning_size = table.needed_text("tuning_size");
    profile.tuning_corpus = table.needed_text("tuning_data");
    profile.tuning_budget = table.number("tuning_budget", profile.tuning_budget);
    profile.tuning_batches = static_cast<std::int64_t>(table.number("tuning_batches", 0));
    known(table, "tuning_size", profile.tuning_size, names_of(spec_.sizes));
    known(table, "tuning_data", profile.tuning_corpus, names_of(spec_.corpora));
    for (const auto& [grid, chosen] : table.named_texts("points")) {
      profile.points[grid] = chosen;
      for (const std::string& point : chosen)
        known(table, "points." + grid, point, names_of(spec_.grids[grid]));
    }
    std::vector<std::int64_t> reported = profile.seeds;
    for (auto& [cover, inner] : table.tables("covers")) {
      profile.covers.push_back(read_cover(cover, inner, profile.seeds));
      const std::vector<std::int64_t>& seeds = profile.covers.back().seeds;
      reported.insert(reported.end(), seeds.begin(), seeds.end());
    }
    if (std::count(reported.begin(), reported.end(), profile.tuning_seed) > 0)
      table.problem("tuning_seed = " + std::to_string(profile.tuning_seed) + " is also a reported seed");
    for (auto& [kind, inner] : table.tables("repeat")) {
      if (kind != "processes") inner.problem("is unknown; processes is what can be repeated");
      profile.repeat = {inner.needed_text("arm"), inner.needed_text("size"), inner.needed_text("data"),
                        static_cast<std::int64_t>(inner.number("seed", 1)), true};
      known(inner, "arm", profile.repeat.arm, names_of(spec_.arms));
      inner.refuse_the_rest();
    }
    table.refuse_the_rest();
    spec_.profiles[name] = std::move(profile);
  }

  CoverSpec read_cover(const std::string& name, TomlTable& table, const std::vector<std::int64_t>& seeds) {
    CoverSpec cover{name, table.needed_text("size"), table.needed_text("data"), {}, {}};
    cover.seeds = table.whole_numbers("seeds");
    cover.own_seeds = !cover.seeds.empty();
    if (!cover.own_seeds) cover.seeds = seeds;
    known(table, "size", cover.size, names_of(spec_.sizes));
    known(table, "data", cover.corpus, names_of(spec_.corpora));
    for (const std::string& glob : table.texts("arms")) {
      const std::size_t before = cover.arms.size();
      for (const ArmSpec& arm : spec_.arms) {
        const bool there = std::count(cover.arms.begin(), cover.arms.end(), arm.name) > 0;
        if (arm.report && !there && glob_matches(glob, arm.name)) cover.arms.push_back(arm.name);
      }
      if (cover.arms.size() == before) known(table, "arms", glob, names_of(spec_.arms));
    }
    table.refuse_the_rest();
    return cover;
  }

  void read_plot(const std::string& name, TomlTable& table) {
    PlotSpec plot{name, table.text("title", name), table.texts("arms")};
    for (const std::string& arm : plot.arms) known(table, "arms", arm, names_of(spec_.arms));
    table.refuse_the_rest();
    spec_.plots.push_back(std::move(plot));
  }

  void known(TomlTable& table, const std::string& what, const std::string& name,
             const std::vector<std::string>& all) {
    if (std::count(all.begin(), all.end(), name) > 0) return;
    const std::string near = nearest_name(name, all);
    table.problem(what + " names " + name + ", which is not there" +
                  (near.empty() ? "" : "; did you mean " + near + "?"));
  }

  ExperimentSpec& spec_;
  std::vector<std::string>& problems_;
};

}  // namespace

const ArmSpec* ExperimentSpec::arm(const std::string& wanted) const {
  return find_named(arms, wanted);
}
const SizeSpec* ExperimentSpec::size(const std::string& wanted) const {
  return find_named(sizes, wanted);
}
const CorpusSpec* ExperimentSpec::corpus(const std::string& wanted) const {
  return find_named(corpora, wanted);
}

std::vector<GridPoint> ExperimentSpec::points(const std::string& grid, const ProfileSpec& profile) const {
  const auto all = grids.find(grid);
  if (all == grids.end()) return {};
  const auto chosen = profile.points.find(grid);
  if (chosen == profile.points.end()) return all->second;
  std::vector<GridPoint> some;
  for (const GridPoint& point : all->second) {
    if (std::count(chosen->second.begin(), chosen->second.end(), point.name) > 0) some.push_back(point);
  }
  return some;
}

Result<ExperimentSpec> load_experiment(const std::string& folder) {
  ExperimentSpec spec;
  spec.name = std::filesystem::path(folder).filename().string();
  spec.base_file = folder + "/base.toml";
  const std::string arms_file = folder + "/arms.toml";
  TESSERA_ASSIGN(spec.base_text, text_of_file(spec.base_file));
  TESSERA_ASSIGN(const Node base, read_document(spec.base_text, spec.base_file));
  spec.base = settings_of(base);
  TESSERA_ASSIGN(const std::string arms_text, text_of_file(arms_file));
  TESSERA_ASSIGN(const Node arms, read_document(arms_text, arms_file));
  std::vector<std::string> problems;
  ExperimentReader(spec, problems).read(TomlTable(arms, "", arms_file, problems));
  if (!problems.empty()) return fail(ExitCode::usage, join(problems, "\n"));
  return spec;
}

}  // namespace tessera
