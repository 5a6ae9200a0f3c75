// The model of a worker: one set of parameters, on which the worker's slots take turns. Only the active
// slot's own rows differ from the committed parameters it adopted; the others' are parked. Where the family
// holds frozen rows in bf16, those are the committed ones rounded, and own rows are fp32 all the same.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/tensor.h"
#include "models/family.h"
#include "models/parameter.h"
#include "worker/slot_run.h"

namespace tessera {

/// How the slots of a run treat what is cut among them.
struct CutSettings {
  std::set<std::string> params;  ///< Plan::cut_params
  bool keeps_fast = false;       ///< partial.owner_view = "fast": a merge leaves a slot's own cut rows alone
  double lr_scale = 1;           ///< of the inner learning rate of cut rows
  double own_share = 0;          ///< OuterMethod::own_share, of all owned rows
};

class Replica {
 public:
  explicit Replica(const Family& family, CutSettings cut = {}, at::Device device = at::kCPU);

  const Family& family() const { return family_; }
  ParamStore& params() { return params_; }

  /// Values of parameters that no slot trains and no version brings; `set` writes into the CPU's memory.
  void set_frozen(const std::function<void(ParamStore&)>& set);
  /// Makes `run` the slot whose rows are in place and trainable; the previously active slot is parked.
  void activate(SlotRun& run);
  /// Coordinates of own rows that adopting replaces; none: all.
  using Taken = std::function<std::optional<std::vector<std::int64_t>>(const ParamSpec&, Rows)>;
  /// Takes newly committed pieces of parameters as the slot's start: they replace its own values of those
  /// rows, all but own_share of them, and where `taken` is set only those that it names. Where owners keep
  /// fast values, its own rows of cut tensors become those of `fast` in the same way, or stay as they are
  /// when that is null.
  void adopt(SlotRun& run, const TensorMap& parameters, const TensorMap* fast = nullptr,
             const Taken& taken = {});
  /// Rows of a parameter as the slot sees them: what it adopted, with its own values of what it owns.
  HostTensor view(const SlotRun& run, const std::string& param, Rows rows);
  /// Puts committed parameters in place, with nothing of any slot: for evaluation. The active slot is parked.
  void show(const TensorMap& parameters);
  /// Parks the slot if it is active: its owned rows may change before it is active again.
  void rest(SlotRun& run);
  /// Forgets a slot that this worker no longer holds.
  void release(const SlotRun& run);
  /// The active slot's owned rows with their gradients.
  std::vector<Piece> pieces();
  /// Copies of the active slot's owned rows, or of their gradients, by piece name.
  TensorMap own_values();
  /// The values themselves where they lie in the CPU's memory: until the slot goes on.
  TensorMap own_views();
  /// Puts other values into the active slot's owned rows, by piece name.
  void set_own_values(const TensorMap& pieces) { overlay(pieces); }
  TensorMap own_gradients();

 private:
  void park();
  TensorMap own_pieces(SlotRun& run, const TensorMap& parameters, const TensorMap* fast);
  TensorMap partly_replaced(const SlotRun& run, const TensorMap& parameters, const Taken& taken);
  std::optional<HostTensor> own_value(const SlotRun& run, const std::string& param, Rows rows);
  void write(const TensorMap& pieces);
  void overlay(const TensorMap& pieces);

  const Family& family_;
  CutSettings cut_;
  ParamStore params_;
  SlotRun* active_ = nullptr;
};

}  // namespace tessera
