#include "launch/reproduce/claims.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>

#include "base/text.h"
#include "launch/reproduce/toml_reader.h"

namespace tessera {
namespace {

bool names_than(const Claim& claim) {
  return claim.kind == "gap";
}

std::vector<std::string> arms_of(const Claim& claim) {
  std::vector<std::string> arms{claim.arm, claim.against};
  if (names_than(claim)) arms.push_back(claim.than);
  return arms;
}

Claim read_claim(const std::string& name, TomlTable& table, const ExperimentSpec& spec) {
  Claim claim;
  claim.name = name;
  claim.text = table.needed_text("text");
  claim.kind = table.text("kind", "loss");
  claim.arm = table.needed_text("arm");
  claim.against = table.text("against", spec.reference);
  claim.margin = table.number("margin", 0);
  claim.covers = table.texts("covers");
  if (names_than(claim)) {
    claim.than = table.needed_text("than");
    claim.share = table.number("share", 0.5);
  }
  if (claim.kind == "bytes") claim.factor = table.number("factor", claim.factor);
  const std::vector<std::string> kinds{"loss", "equal_flops", "gap", "bytes"};
  if (std::count(kinds.begin(), kinds.end(), claim.kind) == 0)
    table.problem("kind = \"" + claim.kind + "\" is not there; there are " + join(kinds, ", "));
  for (const std::string& arm : arms_of(claim)) {
    if (spec.arm(arm) == nullptr) table.problem("names the arm " + arm + ", which is not there");
  }
  table.refuse_the_rest();
  return claim;
}

/// NaN where the claim says nothing about the seed.
double value_of(const Claim& claim, const UnitResult& arm, const UnitResult& against,
                const UnitResult* than) {
  if (claim.kind == "equal_flops") {
    if (arm.curve.empty()) return std::nan("");
    const double same = eval_loss_at(against.curve, arm.curve.back().flops);
    return (arm.curve.back().eval_loss - same) / same;
  }
  if (claim.kind == "bytes") {
    const double bytes = against.bytes_up + against.bytes_down;
    return (claim.factor * (arm.bytes_up + arm.bytes_down) - bytes) / bytes;
  }
  const double gap = arm.final_loss - against.final_loss;
  const double allowed = than == nullptr ? 0 : claim.share * (than->final_loss - against.final_loss);
  return (gap - allowed) / against.final_loss;
}

}  // namespace

double eval_loss_at(const std::vector<CurvePoint>& curve, double flops) {
  for (std::size_t i = 0; i < curve.size(); ++i) {
    if (curve[i].flops < flops) continue;
    if (curve[i].flops == flops) return curve[i].eval_loss;
    if (i == 0) break;
    const CurvePoint &before = curve[i - 1], &after = curve[i];
    const double part = (flops - before.flops) / (after.flops - before.flops);
    return before.eval_loss + part * (after.eval_loss - before.eval_loss);
  }
  return std::nan("");
}

Result<std::vector<Claim>> load_claims(const std::string& file, const ExperimentSpec& spec) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return fail(ExitCode::usage, "there is no ", file);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  TESSERA_ASSIGN(const Node document, read_document(text, file));
  std::vector<std::string> problems;
  std::vector<Claim> claims;
  TomlTable root(document, "", file, problems);
  for (auto& [name, table] : root.tables("claims")) claims.push_back(read_claim(name, table, spec));
  root.refuse_the_rest();
  if (!problems.empty()) return fail(ExitCode::usage, join(problems, "\n"));
  return claims;
}

std::vector<double> claim_values(const Claim& claim, const std::vector<ArmRuns>& runs, std::size_t seeds,
                                 std::string& note) {
  std::vector<std::string> missing;
  for (const std::string& arm : arms_of(claim)) {
    if (find_runs(runs, arm) == nullptr) missing.push_back(arm);
  }
  if (!missing.empty()) {
    note = "no runs of " + join(missing, ", ");
    return {};
  }
  const ArmRuns &arm = *find_runs(runs, claim.arm), &against = *find_runs(runs, claim.against);
  std::vector<double> values;
  for (const auto& [seed, result] : arm.by_seed) {
    const auto other = against.by_seed.find(seed);
    if (other == against.by_seed.end()) continue;
    const UnitResult* than = nullptr;
    if (names_than(claim)) {
      const ArmRuns& third = *find_runs(runs, claim.than);
      if (third.by_seed.count(seed) == 0) continue;
      than = &third.by_seed.at(seed);
    }
    const double value = value_of(claim, result, other->second, than);
    if (std::isfinite(value)) {
      values.push_back(value);
    } else if (claim.kind == "equal_flops") {
      note = claim.arm + " used more operations than " + claim.against + ", or a loss is not finite";
    } else {
      note = "a loss is not finite";
    }
  }
  if (values.size() < seeds && note.empty())
    note = std::to_string(values.size()) + " of " + std::to_string(seeds) + " seeds so far";
  return values;
}

std::vector<ClaimVerdict> judge(const std::vector<Claim>& claims, const CoverSpec& cover,
                                const std::vector<ArmRuns>& runs) {
  std::vector<ClaimVerdict> verdicts;
  for (const Claim& claim : claims) {
    if (!claim.covers.empty() && std::count(claim.covers.begin(), claim.covers.end(), cover.name) == 0)
      continue;
    const std::vector<std::string> arms = arms_of(claim);
    const bool concerned = std::all_of(arms.begin(), arms.end(), [&](const std::string& arm) {
      return std::count(cover.arms.begin(), cover.arms.end(), arm) > 0;
    });
    if (!concerned) continue;
    ClaimVerdict verdict{.claim = &claim, .cover = cover.name, .interval = {}, .note = ""};
    verdict.interval = mean_interval(claim_values(claim, runs, cover.seeds.size(), verdict.note));
    if (verdict.note.empty()) verdict.verdict = judge_at_most(verdict.interval, claim.margin);
    verdicts.push_back(verdict);
  }
  return verdicts;
}

}  // namespace tessera
