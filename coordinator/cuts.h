// What is divided: turns the family's cut groups, globs of whole tensors and the `partial` settings into
// slices, each of which belongs to one of N parts. Who owns which part is coordinator/assign.h.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/params.h"
#include "coordinator/partial_settings.h"

namespace tessera {

/// Sentences about a recipe that cannot be planned, each with the numbers and what would do.
using Sentences = std::vector<std::string>;

/// The trainable parameters that a cut divides, before it is divided.
struct Divisible {
  struct Group {
    CutGroup group;                   ///< without members that all slots share
    std::vector<std::int64_t> units;  ///< that have something to train, ascending
  };
  std::vector<Group> groups;
  std::vector<ParamSpec> tensors;  ///< dealt whole
  std::vector<ParamSpec> specs;    ///< of the model
  bool empty() const { return groups.empty() && tensors.empty(); }
  /// How many parts it can have at most.
  std::int64_t most_parts() const;
  /// Multiply-adds per token of the cut matrices' weight gradients: a slot need not compute what it does not
  /// own.
  double products() const;
};

/// Marks the parameters that partial.frozen names as Role::frozen; nothing else looks at that setting.
std::vector<ParamSpec> mark_frozen(std::vector<ParamSpec> specs, const PartialSettings& settings,
                                   Sentences& wrong);

/// What partial.cut and partial.shared select.
Divisible select_cut(const std::vector<ParamSpec>& specs, const std::vector<CutGroup>& cuts,
                     const PartialSettings& settings, Sentences& wrong);

/// A slice without owners, and the part it belongs to.
struct PartSlice {
  Slice slice;
  std::int64_t part = 0;
};

/// Divides into as many parts as there are shares (they sum to one), of about these sizes and none of them
/// empty. Equal shares give part k of U units the units [kU/N, (k+1)U/N). Tensors go, the largest first, to
/// the part that is then the least full. Notes say where parts are uneven.
std::vector<PartSlice> divide(const Divisible& divisible, const std::vector<double>& shares,
                              std::vector<std::string>& notes);

}  // namespace tessera
