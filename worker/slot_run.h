// A slot at work: what it owns, how far it is, its inner optimizer. Everything that a slot's next
// contribution depends on is here or in the committed parameters, so a run can be saved, moved to another
// worker and continued bit for bit.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/params.h"
#include "base/tensor.h"
#include "comm/messages.h"
#include "optim/inner.h"
#include "optim/loss_scale.h"
#include "worker/protocol/worker_machine.h"

namespace tessera {

struct SlotRun {
  SlotId slot;
  RowSet owned;
  /// When rows came to the slot, for those that it did not own from the beginning: parameter -> rows -> step.
  std::map<std::string, std::map<Rows, std::int64_t>> since;
  Attempt attempt;
  std::int64_t step = 0;      ///< position in the schedule and, times the batch, in the slot's data
  std::int64_t left_out = 0;  ///< steps before it that the slot did not do: merges were made without it
  std::unique_ptr<InnerOptimizer> inner;
  std::optional<LossScale> loss_scale;  ///< where gradients pass through fp16
  Work work;                            ///< since the last contribution

  /// Committed parameters that the slot has adopted, by the pieces of the method's fragments: mostly whole
  /// tensors (shared with other slots and with the wire).
  TensorMap adopted;
  /// Own values of owned rows, by piece name, while another slot is active on the replica: what differs from
  /// `adopted`.
  TensorMap parked;
  /// What encoding left out of the slot's contributions so far, by piece name; empty without error feedback.
  TensorMap residuals;

  /// What the method keeps of each own piece, by "NAME/PIECE" (OuterMethod::own_state_names).
  TensorMap method;

  /// Inner steps that changed parameters: those that overflowed or were left out are not counted.
  std::int64_t updates() const { return step - left_out - skipped(); }
  /// The slot's next step is this one.
  void go_to(std::int64_t next) { left_out += next - std::exchange(step, next); }
  std::int64_t skipped() const { return loss_scale ? loss_scale->skipped() : 0; }

  /// Other rows are the slot's from update `at` on: moments and residuals of rows that stay are kept, those
  /// of rows that go are dropped, and rows that come start without, or with the moments that `handed` has for
  /// them (pieces by moment_name). `specs` are all parameters of the model.
  void own(RowSet rows, std::int64_t at, const std::vector<ParamSpec>& specs, const TensorMap& handed = {});
  /// A moment of owned rows, by moment_name, to be sent; zero where the optimizer has none yet.
  TensorMap moments_of(const std::string& moment, const RowSet& rows,
                       const std::vector<ParamSpec>& specs) const;
  /// Goes on with other moments of the rows that it owns: `means` are pieces by moment_name.
  void replace_moments(const TensorMap& means);
  /// The replica's pieces as the inner optimizer knows them: cut where rows came at different steps.
  std::vector<Piece> by_age(const std::vector<Piece>& pieces) const;

  /// What is saved, hashed and moved: moments as "inner/PIECE/NAME", residuals as "feedback/PIECE", ages as
  /// "slot/since/PIECE", `method` as "method/NAME/PIECE", and the protocol's progress as "slot/step",
  /// "slot/adopted", "slot/pushed"; steps left out, if any, as "slot/left_out"; the loss scale, where there
  /// is one, as "slot/loss_scale". The data cursor is step x batch, since a slot's stream is a function of
  /// the position. `view` is what the slot goes on with and no version brings: pieces of parameters,
  /// saved as "view/PIECE". `bases` are its own rows in the versions that its changes are counted from, where
  /// no version will bring them: by piece name, "base/PIECE".
  TensorMap state(const SlotProgress& progress, const TensorMap& view = {},
                  const TensorMap& bases = {}) const;
  /// Takes over a saved state, its view as `adopted`; where there are bases, they are that, and own values
  /// are parked. Error: a state of other tensors.
  Result<SlotProgress> load(const TensorMap& state);

 private:
  bool park_above(const TensorMap& bases);
};

}  // namespace tessera
