// What an experiment is to decide: claims with margins, written down before the results (claims.toml), and
// the verdict on each.
#pragma once
#include <string>
#include <vector>

#include "launch/reproduce/summary.h"

namespace tessera {

/// All kinds say that a number, formed for every seed and relative to the loss of `against`, is at most
/// margin:
///   loss         loss(arm) - loss(against)
///   equal_flops  eval(arm, end) - eval(against, where it had used as many operations), by its curve
///   gap          (loss(arm) - loss(against)) - share * (loss(than) - loss(against))
/// but for
///   bytes        factor * bytes(arm) - bytes(against), up and down of all slots, relative to the bytes of
///                `against`
struct Claim {
  std::string name, text, kind;
  std::string arm, against, than;
  double margin = 0, share = 0, factor = 1;
  std::vector<std::string> covers;  ///< decided on these; empty: wherever its arms meet
};

struct ClaimVerdict {
  const Claim* claim = nullptr;
  std::string cover;
  MeanInterval interval;  ///< over the seeds that all its arms have
  Verdict verdict = Verdict::undecided;
  std::string note;  ///< why it cannot be decided: what is missing
};

/// One Error (usage) with a line per problem.
Result<std::vector<Claim>> load_claims(const std::string& file, const ExperimentSpec& spec);

/// The number of the claim for each of `seeds` seeds. With a note, and not to be judged, when runs are
/// missing, a loss is not finite or curves do not reach: a verdict on the seeds that went well would be one
/// on survivors.
std::vector<double> claim_values(const Claim& claim, const std::vector<ArmRuns>& runs, std::size_t seeds,
                                 std::string& note);

/// Verdicts on a cover's runs; claims that do not concern the cover are left out.
std::vector<ClaimVerdict> judge(const std::vector<Claim>& claims, const CoverSpec& cover,
                                const std::vector<ArmRuns>& runs);

/// The eval loss where the curve had used `flops` operations, between two points by a straight line. NaN
/// before its first point or after its last.
double eval_loss_at(const std::vector<CurvePoint>& curve, double flops);

}  // namespace tessera
