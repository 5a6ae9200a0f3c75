// The arithmetic of a merge: contributions of slots -> the next version of a fragment. Sums are fp64 in slot
// order per coordinate, so the bits depend neither on arrival order nor on who computed what where.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/buffer_pool.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/params.h"
#include "base/tensor.h"
#include "optim/outer.h"

namespace tessera {

class SlotMean;

/// What one slot brings to a merge: F32 tensors by piece_name ("blocks.0.mlp.up[0:64]", or the bare name of a
/// whole parameter).
struct MergeInput {
  SlotId slot;
  TensorMap pieces;
  Brought brought{};
};

struct MergeOutcome {
  std::int64_t updated = 0;    ///< trained coordinates with at least one contribution
  std::int64_t uncovered = 0;  ///< trained coordinates with none: parameter and state were left alone
  std::vector<std::string> uncovered_pieces;  ///< the same by piece_name
  RowSet uncovered_rows;                      ///< and as rows
  double delta_norm = 0;                      ///< L2 norm of the merged delta (or gradient)
  OuterReport outer;                          ///< what the method did
};

/// What a merge has to know of the plan.
struct MergeSettings {
  std::set<std::string> cut;  ///< parameters that are divided among the slots (Plan::cut_params)
  /// partial.owner_view = "fast": owners of a cut coordinate keep its fast value F, the mean of what they
  /// brought; the parameters that everybody else sees, and that are evaluated, follow slowly. F is part of
  /// the outer state, "fast/NAME".
  bool keeps_fast = false;
  /// partial.average = "slots": divide by so many instead of by the m owners that contributed. 0: by owners.
  std::int32_t average_over = 0;
  bool brings_changes =
      false;        ///< contributions hold theta_start - theta_end, not theta_end (comm/changes.h)
  int threads = 1;  ///< that share the passes over memory; changes no bit
};

/// What a merge does about the deltas of all parameters, which are 8 bytes each.
enum class Deltas : std::uint8_t {
  stored,      ///< the method reads them as a whole
  made_twice,  ///< for the sums that the step depends on, and for the step; stored if they are of many
  made_once,   ///< with the step, which depends on nothing
};
Deltas deltas_of(const OuterMethod& method, const MergeSettings& settings);
/// Contributions to a coordinate, on average, above which it takes longer to read them twice than to store
/// their mean in fp64.
inline constexpr double owners_read_twice = 6;
inline bool are_stored(Deltas deltas, double owners) {
  return deltas == Deltas::stored || (deltas == Deltas::made_twice && owners > owners_read_twice);
}

/// Names and shapes of a contribution must be exactly the pieces of `expected`, in F32 and finite, unless
/// that is known. The Error names the tensor. `threads` share the work.
Status validate(const TensorMap& contribution, const RowSet& expected, const std::vector<ParamSpec>& specs,
                int threads = 1, bool is_finite = false);

/// Merges contributions with an outer method. Holds no state of its own; the caller owns parameters and outer
/// state.
class Merger {
 public:
  /// `specs` are all parameters of the model; `method` was made from the same.
  Merger(std::vector<ParamSpec> specs, std::shared_ptr<const OuterMethod> method,
         MergeSettings settings = {});

  /// Outer state before the first merge: zeros, "momentum/blocks.0.mlp.up" for each name in the method's
  /// state_names() and each trained parameter; and copies of the cut parameters of `theta` where fast values
  /// are kept.
  TensorMap initial_state(const TensorMap& theta = {}) const;
  /// The fast values of a fragment by piece, sharing memory; empty where none are kept.
  TensorMap fast_values(FragmentId fragment, const TensorMap& state) const;

  /// What a slot that owns `owned` brings to a merge of `fragment`: its own of the fragment's rows, and all
  /// that are a buffer's.
  RowSet expected(FragmentId fragment, const RowSet& owned) const;
  Status validate(FragmentId fragment, const RowSet& owned, const TensorMap& contribution,
                  bool is_finite = false) const;

  /// Makes `version` (from 1) of `fragment`, in place: `theta` holds the parameters by name (F32), `state`
  /// what initial_state() made. Per coordinate: the mean over the inputs that hold it, m[i] of them, in slot
  /// order; where m[i] = 0 nothing moves. A buffer becomes the plain mean of its contributions. The inputs
  /// come in any order, have passed validate(), and at most one per slot. Needs 8 bytes per parameter of the
  /// fragment besides its arguments if deltas are_stored(), else next to nothing.
  MergeOutcome merge(FragmentId fragment, Version version, const std::vector<MergeInput>& inputs,
                     TensorMap& theta, TensorMap& state) const;

 private:
  void add_updates(SlotMean& mean, const std::vector<const MergeInput*>& inputs, TensorMap& theta,
                   TensorMap& state, std::vector<Update>& updates, MergeOutcome& outcome) const;
  std::span<const float> momentum_of(const ParamSpec& spec, Rows range, TensorMap& state) const;
  bool is_cut(const std::string& name) const { return settings_.cut.count(name) > 0; }
  std::vector<std::string> state_names(const std::string& param) const;

  std::vector<ParamSpec> specs_;
  std::shared_ptr<const OuterMethod> method_;
  MergeSettings settings_;
  std::vector<RowSet> fragments_;
  BufferPool scratch_;
};

}  // namespace tessera
