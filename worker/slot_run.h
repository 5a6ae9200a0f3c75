// A slot at work: what it owns, how far it is, its inner optimizer. Everything that a slot's next
// contribution depends on is here or in the committed parameters, so a run can be saved, moved to another
// worker and continued bit for bit.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
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
  std::int64_t step = 0;  ///< inner steps done since the beginning of training
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

  /// Inner steps that changed parameters: those that overflowed are not counted.
  std::int64_t updates() const { return step - skipped(); }
  std::int64_t skipped() const { return loss_scale ? loss_scale->skipped() : 0; }

  /// Other rows are the slot's from update `at` on: moments and residuals of rows that stay are kept, those
  /// of rows that go are dropped, and rows that come start without, or with the moments that `handed` has for
  /// them (pieces by moment_name). `specs` are all parameters of the model.
  void own(RowSet rows, std::int64_t at, const std::vector<ParamSpec>& specs, const TensorMap& handed = {});
  /// Moments of owned rows, by moment_name, to be handed over.
  TensorMap moments_of(const RowSet& rows, const std::vector<ParamSpec>& specs) const;
  /// The replica's pieces as the inner optimizer knows them: cut where rows came at different steps.
  std::vector<Piece> by_age(const std::vector<Piece>& pieces) const;

  /// What is saved, hashed and moved: moments as "inner/PIECE/NAME", residuals as "feedback/PIECE", ages as
  /// "slot/since/PIECE", `method` as "method/NAME/PIECE", and the protocol's progress as "slot/step",
  /// "slot/adopted", "slot/pushed"; the loss scale, where there is one, as "slot/loss_scale". The data cursor
  /// is step x batch, since a slot's stream is a function of the position. `view` is what the slot goes on
  /// with and no version brings: pieces of parameters, saved as "view/PIECE".
  TensorMap state(const SlotProgress& progress, const TensorMap& view = {}) const;
  /// Takes over a saved state, its view as `adopted`. Error: a state of other tensors.
  Result<SlotProgress> load(const TensorMap& state);
};

}  // namespace tessera
