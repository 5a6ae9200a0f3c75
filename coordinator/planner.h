// Who trains what: turns the family's cut groups and the `partial` settings into plans. Pure and torch-free;
// a function of its arguments alone, so that every role that computes a plan gets the same one.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/cost_model.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/params.h"
#include "coordinator/partial_settings.h"

namespace tessera {

/// The parameters of the model as this run trains them: those that partial.frozen names have Role::frozen.
/// Error (usage): a glob that matches nothing, or nothing left to train.
Result<std::vector<ParamSpec>> trained_specs(std::vector<ParamSpec> specs, const PartialSettings& settings);

/// Who trains what at each version: slices stay, their owners may move every partial.rotate_every rounds.
///
/// Slices of cut groups are named after their units ("blocks.3.mlp/units[512:1024]"), whole tensors after
/// themselves; all other trainable rows form the slice "shared", owned by every slot. Only parameters of
/// Role::weight are planned: buffers are brought whole by every slot, local and frozen ones never travel.
class PlanSchedule {
 public:
  /// The user's mistakes come back as one Error (ExitCode::usage), a sentence with the numbers per line:
  /// unknown cut, more slices than units, slices without an owner. `cost` is for assign balanced.
  static Result<PlanSchedule> make(const std::vector<ParamSpec>& specs, const std::vector<CutGroup>& cuts,
                                   const PartialSettings& settings, std::int32_t slots,
                                   const CostModel& cost = {});

  /// The plan of work that starts from `version`.
  Plan at(Version version) const;
  /// The same for one slot, and for all slots together.
  RowSet owned(SlotId slot, Version version) const;
  RowSet trained(Version version) const;
  /// Rows that leave the slot at the merge which ends work from `version`: all that it owns of the cut, or
  /// nothing.
  RowSet handed_over(SlotId slot, Version version) const;
  std::vector<std::string> cut_parameters() const;
  /// Of each of the partial.slices slices its rows, in all cut parameters; empty: nothing is cut.
  std::vector<RowSet> slice_rows() const;
  /// Whether some slot owns something else at `version` than at the version before.
  bool changes_at(Version version) const;
  /// Versions after which the owners are the first ones again; 1: they never change.
  std::int64_t cycle() const { return rotate_every_ > 0 ? rotate_every_ * parts() : 1; }

 private:
  std::int64_t parts() const { return static_cast<std::int64_t>(owners_.size()); }
  std::int64_t turn(Version version) const;
  const std::vector<std::int32_t>& owners_of(std::size_t slice, Version version) const;

  std::int32_t slots_ = 0;
  std::vector<Slice> slices_;                      ///< without owners
  std::vector<std::int64_t> part_;                 ///< of each slice; -1: all slots own it
  std::vector<std::vector<std::int32_t>> owners_;  ///< of each part, in the first turn
  std::vector<std::int32_t> everybody_;
  std::int64_t rotate_every_ = 0;
  bool may_rest_ = false;
  std::vector<std::string> notes_;
};

/// The plan at version 0.
Result<Plan> make_plan(const std::vector<ParamSpec>& specs, const std::vector<CutGroup>& cuts,
                       const PartialSettings& settings, std::int32_t slots, const CostModel& cost = {});

/// Aborts unless the slices tile every trainable parameter exactly, each has owners (unless the plan lets
/// slices rest), ascending, among the slots, and every slot owns something.
void check_plan(const Plan& plan, const std::vector<ParamSpec>& specs);

}  // namespace tessera
