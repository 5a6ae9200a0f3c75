// Who trains what: turns the family's cut groups and the `partial` settings into a Plan. Pure and torch-free;
// a function of its arguments alone, so that every role that computes the plan gets the same one.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/fields.h"
#include "base/params.h"

namespace tessera {

/// The table [partial] of a recipe.
struct PartialSettings : Settings {
  std::string cut = "none";       ///< "none", or kinds of cut groups joined by '+': "mlp", "mlp+heads"
  std::int64_t slices = 1;        ///< N: parts that every selected cut group is divided into
  std::string assign = "modulo";  ///< which slot owns which slice: slot s owns slice s mod N of every group
  std::string owner_view = "reset";  ///< what a merge does to the owners' own values of what is cut
  std::string average = "owners";    ///< what the sum of the deltas is divided by
  double inner_lr_scale = 1;         ///< of the inner learning rate of what is cut
  void fields(FieldVisitor& f) override;
  std::vector<std::string> problems() const override;
};

/// Slice k of each selected group holds its units [k U/N, (k+1) U/N) and is named after them
/// ("blocks.3.mlp/units[512:1024]"); slot s owns slice s mod N of every group. All other trainable rows form
/// the slice "shared", owned by every slot.
///
/// Only parameters of Role::weight are planned: buffers are brought whole by every slot, local ones never
/// travel. The user's mistakes come back as one Error (ExitCode::usage), a sentence with the numbers per
/// line: unknown cut, slices that do not divide the units, slices without an owner.
Result<Plan> make_plan(const std::vector<ParamSpec>& specs, const std::vector<CutGroup>& cuts,
                       const PartialSettings& settings, std::int32_t slots);

/// Aborts unless the slices tile every trainable parameter exactly and each has owners, ascending, among the
/// slots.
void check_plan(const Plan& plan, const std::vector<ParamSpec>& specs);

}  // namespace tessera
