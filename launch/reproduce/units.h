// A unit: one training run of the experiment, (arm, size, data, seed, grid point), and the settings that it
// follows from. Pure; what is known of earlier results comes in as tuned points.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "launch/reproduce/spec.h"

namespace tessera {

struct Unit {
  std::string name;  ///< "mlp_4-s1-austen-seed1"; identity, and stem of its result's file
  std::string arm, size, corpus;
  std::string point;  ///< of a tuning unit: the grid point; else empty
  std::int64_t seed = 0;
  bool processes = false;  ///< run by `tessera train` instead of debug
  bool tuning() const { return !point.empty(); }
};

/// Where composing a unit stands.
struct Composed {
  Said settings;                       ///< all that is said, base included, sorted by name
  std::vector<std::string> overrides;  ///< "a.b=c", what is laid over base.toml
  std::string waits_for;               ///< not empty: the arm whose tuned point is not known yet
};

/// The best point of an arm, or none while its tuning is not done.
using TunedPoint = std::function<std::optional<GridPoint>(const ArmSpec&)>;

/// All units of a profile in the order in which they are best run: an arm's tuning, then its seeds; cover by
/// cover.
std::vector<Unit> units_of(const ExperimentSpec& spec, const ProfileSpec& profile);
/// The tuning units of one arm.
std::vector<Unit> tuning_units(const ExperimentSpec& spec, const ProfileSpec& profile, const ArmSpec& arm);

/// Lays over each other: base, size, data, tuned points of inherited arms, the arm, its own tuned point (or
/// the tuning unit's), seed; then multiplies by the arm's factors and a tuning unit's budget. An Error names
/// a factor that leaves no whole number.
Result<Composed> compose(const ExperimentSpec& spec, const ProfileSpec& profile, const Unit& unit,
                         const TunedPoint& tuned);

}  // namespace tessera
