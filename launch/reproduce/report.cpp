#include "launch/reproduce/report.h"

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <set>

#include "base/text.h"
#include "comm/storage/files.h"
#include "launch/reproduce/plots.h"

namespace tessera {
namespace {

std::string printed(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string percent(double fraction) {
  return printed("%+.2f %%", 100 * fraction);
}

/// "+0.42 % [-0.10, +0.94]"
std::string interval_text(const MeanInterval& interval) {
  if (interval.count == 0) return "-";
  if (interval.count == 1) return percent(interval.mean) + " (one seed)";
  return percent(interval.mean) + " [" + printed("%+.2f", 100 * interval.low) + ", " +
         printed("%+.2f", 100 * interval.high) + "]";
}

/// Two covers may have one size and data set, and differ in their seeds.
std::string seeds_text(const CoverSpec& cover) {
  if (!cover.own_seeds) return "";
  std::vector<std::string> seeds;
  for (const std::int64_t seed : cover.seeds) seeds.push_back(std::to_string(seed));
  return ", seeds " + join(seeds, ", ");
}

std::string loss_text(const ArmRuns& runs) {
  const std::vector<double> losses = runs.losses();
  std::string text = printed("%.4f", mean(losses));
  if (losses.size() > 1) text += " ± " + printed("%.4f", sample_sd(losses));
  return text + " (" + std::to_string(losses.size()) + ")";
}

std::string seconds_text(double seconds) {
  return std::isfinite(seconds) ? format_duration(seconds) : "-";
}

void add_table(const ReportInput& input, const std::vector<ArmRuns>& runs, std::string& out) {
  const ArmRuns* reference = find_runs(runs, input.spec.reference);
  const std::string against = input.spec.arm(input.spec.reference)->label;
  out += "| arm | loss, mean ± sd (seeds) | against " + against +
         " [95 %] | tokens | FLOPs | trains | static memory | step peak | process | bytes | core time | 10 "
         "Mbit/s | "
         "50 Mbit/s | "
         "200 Mbit/s |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  for (const ArmRuns& arm : runs) {
    const UnitResult& one = arm.by_seed.begin()->second;
    const double rounds = static_cast<double>(arm.resolved->rounds);
    const bool is_reference = reference == nullptr || reference == &arm;
    out += "| " + arm.arm->label + " | " + loss_text(arm) + " | " +
           (is_reference ? "-" : interval_text(mean_interval(relative_differences(arm, *reference)))) +
           " | " + format_count(one.tokens) + " | " + printed("%.3e", one.flops);
    if (!is_reference && reference->resolved)
      out +=
          " (" + printed("%+.1f %%", 100 * (one.flops / reference->by_seed.begin()->second.flops - 1)) + ")";
    out += " | " + format_count(one.trained_parameters) + " | " + format_bytes(one.static_bytes) + " | " +
           (one.step_peak_bytes > 0 ? format_bytes(one.step_peak_bytes) : "-") + " | " +
           format_bytes(arm.typical(&UnitResult::peak_bytes)) + " | " +
           format_bytes(one.bytes_up + one.bytes_down) + " | " +
           seconds_text(arm.typical(&UnitResult::cpu_seconds));
    for (const double mbits : predicted_links) out += " | " + seconds_text(rounds * arm.round_seconds(mbits));
    out += " |\n";
  }
}

void add_verdicts(const std::vector<ClaimVerdict>& verdicts, std::string& out) {
  if (verdicts.empty()) return;
  out += "\n| claim | number, mean [95 %] | allowed | seeds | verdict |\n|---|---|---|---|---|\n";
  for (const ClaimVerdict& verdict : verdicts) {
    out += "| " + verdict.claim->text + " | " + interval_text(verdict.interval) + " | at most " +
           percent(verdict.claim->margin) + " | " + std::to_string(verdict.interval.count) + " | **" +
           word_of(verdict.verdict) + "**" + (verdict.note.empty() ? "" : " (" + verdict.note + ")") + " |\n";
  }
}

void add_tuning(const ReportInput& input, std::string& out) {
  std::set<std::string> arms;
  for (const UnitStatus& status : input.units) {
    if (status.unit.tuning()) arms.insert(status.unit.arm);
  }
  if (arms.empty()) return;
  out += "\n## Tuning\nSeed " + std::to_string(input.profile.tuning_seed) + ", which is not reported; " +
         input.spec.size(input.profile.tuning_size)->label + ", " +
         input.spec.corpus(input.profile.tuning_corpus)->label + ", " +
         printed("%g", input.profile.tuning_budget) +
         " of the rounds with the schedule's horizon at that budget. The chosen point of an arm holds for "
         "all sizes "
         "and data sets.\n\n| arm | chosen | loss of every point |\n|---|---|---|\n";
  for (const ArmSpec& arm : input.spec.arms) {
    if (arms.count(arm.name) == 0) continue;
    std::vector<std::string> points;
    for (const UnitStatus& status : input.units) {
      if (status.unit.arm != arm.name || !status.unit.tuning()) continue;
      points.push_back(status.unit.point + " " +
                       (status.state == UnitState::done     ? printed("%.4f", status.result->final_loss)
                        : status.state == UnitState::failed ? "failed"
                                                            : "-"));
    }
    const auto chosen = input.tuned.find(arm.name);
    out += "| " + arm.label + " | " + (chosen == input.tuned.end() ? "-" : chosen->second.name) + " | " +
           join(points, ", ") + " |\n";
  }
}

/// A repeated run must have the state hash of the run that it repeats.
void add_repeats(const ReportInput& input, std::string& out) {
  for (const UnitStatus& status : input.units) {
    if (!status.unit.processes || status.state != UnitState::done) continue;
    for (const UnitStatus& other : input.units) {
      if (other.state != UnitState::done || other.unit.name + "-processes" != status.unit.name) continue;
      const bool equal = status.result->state_hash == other.result->state_hash;
      out += "\nAs processes (`tessera train`), " + other.unit.name + " ends with the state hash " +
             status.result->state_hash +
             (equal ? ", which is that of the debug run.\n"
                    : ", **which is not that of the debug run**, " + other.result->state_hash + ".\n");
    }
  }
}

void add_missing(const ReportInput& input, std::string& out) {
  std::map<std::string, std::vector<std::string>> reasons;  // why -> units
  std::size_t done = 0;
  for (const UnitStatus& status : input.units) {
    if (status.state == UnitState::done) {
      ++done;
    } else if (status.state == UnitState::ready) {
      reasons["not run yet"].push_back(status.unit.name);
    } else {
      reasons[(status.state == UnitState::stale ? "stale: " : "") + status.why].push_back(status.unit.name);
    }
  }
  out += "\n## State\n" + std::to_string(done) + " of " + std::to_string(input.units.size()) +
         " units are done.\n";
  for (const auto& [why, units] : reasons) {
    out += "* " + why + ": " + std::to_string(units.size()) + (units.size() == 1 ? " unit, " : " units, ") +
           join({units.begin(), units.begin() + std::min<std::ptrdiff_t>(6, std::ssize(units))}, ", ") +
           (units.size() > 6 ? ", ...\n" : "\n");
  }
}

void add_provenance(const ReportInput& input, std::string& out) {
  std::set<std::string> commits, machines;
  std::map<std::string, std::set<std::string>> corpora;
  for (const UnitStatus& status : input.units) {
    if (status.state != UnitState::done) continue;
    commits.insert(status.result->commit);
    machines.insert(status.result->machine);
    corpora[status.unit.corpus].insert(status.result->corpus_hash);
  }
  if (commits.empty()) return;
  out += "* commits: " + join({commits.begin(), commits.end()}, ", ") +
         "\n* machines: " + join({machines.begin(), machines.end()}, "; ") + "\n";
  for (const auto& [corpus, hashes] : corpora) {
    out += "* " + corpus + ": text with xxh3-128 " + join({hashes.begin(), hashes.end()}, ", ") +
           (hashes.size() > 1 ? " (**the text changed between units**)\n" : "\n");
  }
}

constexpr const char* how_to_read =
    "Loss: nats per token of the last merged parameters on all held-out text. The difference is paired by "
    "seed, with the 95 % interval of Student's t. FLOPs, the parameters that a slot trains, static memory "
    "(weights, gradients, "
    "moments and anchor of one slot, fp32), step peak (that, activations, and what a step needs for a while) "
    "and bytes (up and down, all slots) are computed by the cost model. Process is the largest resident set "
    "of "
    "the run's process, which holds all slots; core time is its processor time on one core, evaluations "
    "included. The last columns are predicted: every slot has a core of the measured speed and a link of its "
    "own with so many Mbit/s in each direction.\n";

}  // namespace

std::string report_text(const ReportInput& input,
                        const std::map<std::string, std::vector<std::string>>& pictures,
                        const std::string& picture_folder) {
  const ExperimentSpec& spec = input.spec;
  std::string out = "# " + spec.title + "\nWritten by `tessera reproduce " + spec.name +
                    "` from the results of its units (docs/reproduce.md); do not edit. Paper: " + spec.paper +
                    ".\n\n" + how_to_read;
  for (const CoverSpec& cover : input.profile.covers) {
    const std::vector<ArmRuns> runs = runs_of(spec, cover, input.units);
    out += "\n## " + spec.size(cover.size)->label + ", " + spec.corpus(cover.corpus)->label +
           seeds_text(cover) + "\n";
    if (runs.empty()) {
      out += "No results yet.\n";
      continue;
    }
    add_table(input, runs, out);
    add_verdicts(judge(input.claims, cover, runs), out);
    if (const auto drawn = pictures.find(cover.name); drawn != pictures.end()) {
      out += "\n";
      for (const std::string& file : drawn->second)
        out += "![" + file + "](" + picture_folder + "/" + file + ")\n";
    }
  }
  add_repeats(input, out);
  add_tuning(input, out);
  add_missing(input, out);
  add_provenance(input, out);
  return out;
}

Status write_report(const ReportInput& input, const std::string& file, const std::string& pictures) {
  namespace fs = std::filesystem;
  TESSERA_TRY(make_folder(fs::path(file).parent_path()));
  std::map<std::string, std::vector<std::string>> drawn;
  for (const CoverSpec& cover : input.profile.covers) {
    // The first cover is the main one: against all axes. The others say whether the picture is the same.
    const bool all_axes = &cover == &input.profile.covers.front();
    TESSERA_ASSIGN(drawn[cover.name], draw_plots(input.spec, cover, runs_of(input.spec, cover, input.units),
                                                 all_axes, pictures));
  }
  std::error_code unknown;
  const std::string folder = fs::proximate(pictures, fs::path(file).parent_path(), unknown).string();
  return atomic_write(file, report_text(input, drawn, folder), Durability::process);
}

}  // namespace tessera
