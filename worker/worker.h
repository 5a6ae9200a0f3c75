// A worker: performs what its protocol machine (worker/protocol) asks for, on a model replica, and tells it
// what came of it. One object serves the process of `tessera worker` (blocking) and debug mode (pumped beside
// the coordinator in one thread).
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "comm/changes.h"
#include "comm/sparse.h"
#include "comm/transport/endpoint.h"
#include "data/source.h"
#include "models/family.h"
#include "optim/objective.h"
#include "optim/outer.h"
#include "optim/schedule.h"
#include "worker/protocol/worker_machine.h"
#include "worker/replica.h"
#include "worker/slot_run.h"
#include "worker/slot_store.h"
#include "worker/trainer.h"

namespace tessera {

/// Everything that a recipe makes of a worker; built by launch when the job's recipe is known.
struct WorkerParts {
  std::unique_ptr<Family> family;
  std::unique_ptr<Objective> objective;
  std::unique_ptr<Schedule> schedule;
  std::unique_ptr<DataSource> data;
  std::shared_ptr<const OuterMethod> method;
  std::function<std::unique_ptr<InnerOptimizer>()> make_inner;
  std::optional<LossScale> loss_scale;  ///< that a slot begins with, where gradients pass through fp16
  std::int32_t slots = 1;
  std::function<RowSet(SlotId, Version)> owned;  ///< what a slot trains that works on from a version
  /// Moments of the inner optimizer that contributions also bring, and of which rows one from a version does.
  std::vector<std::string> moments;
  std::function<RowSet(const std::string& moment, SlotId, Version)> brings_moments;
  /// Sets parameters that no version brings, because nobody trains them; empty: there are none.
  std::function<void(ParamStore&)> set_frozen;
  TrainerSettings trainer;
  CutSettings cut;
  at::Device device = at::kCPU;                 ///< where parameters lie and steps are computed
  Wire up, down;                                ///< contributions, and updates of published versions
  bool fast_for_all = false;                    ///< WorkPlan::fast_for_all
  Durability durability = Durability::process;  ///< of slot states
  Version rounds;                               ///< merges of each fragment in the whole run
  Ready ready;                                  ///< what this worker says of its data and numerics
};

class Worker {
 public:
  /// Recipe text -> parts. Errors end the worker with their code.
  using Configure = std::function<Result<std::unique_ptr<WorkerParts>>(const std::string& recipe)>;

  Worker(WorkerIdentity identity, Incarnation incarnation, Endpoint& endpoint, const Clock& clock);
  /// Both must be set before start().
  void set_configure(Configure configure) { configure_ = std::move(configure); }
  void set_slot_store(SlotStore store) { store_ = std::make_unique<SlotStore>(std::move(store)); }

  void start();
  /// Handles what has arrived and does one slice of work (an inner step, a few held-out batches). Without
  /// work it waits for arrivals, at most until the machine's next deadline or `wait_until`.
  void pump(Instant wait_until);
  /// Leaves in good order.
  void quit(const std::string& reason);
  /// How it ended, once it has.
  const std::optional<worker_action::Exit>& ended() const { return ended_; }

 private:
  // What every action does; those of work return the machine's answer.
  void perform(const WorkerActions& actions);
  void perform(const WorkerAction& action);
  void feed(const WorkerEvent& event);
  void take(const Arrival& arrival);
  void fetch(const worker_action::Fetch& action);
  /// The parameters that an update, fetched in their place, makes of the version before.
  Result<Blob> made_of(const Blob& update, const worker_action::Fetch& wanted);
  WorkerEvent work(const worker_action::Configure& action);
  WorkerEvent work(const worker_action::Restore& action);
  WorkerEvent work(const worker_action::Run& action);
  WorkerEvent work(const worker_action::Contribute& action);
  WorkerEvent work(const worker_action::Evaluate& action);

  /// The rows of a fragment that a slot trains at a version of it.
  RowSet owned_of(SlotId slot, FragmentId fragment, Version version) const;
  /// Makes the slot own what it owns at this version. Takes the moments out of `parameters`, where some
  /// travel.
  void change_owned(SlotRun& run, const worker_action::Adopt& action, TensorMap& parameters);
  Result<SlotProgress> restore(SlotRun& run, const worker_action::Restore& action);
  Result<SlotProgress> load(SlotRun& run, const TensorMap& state) const;
  TensorMap bases_of(const SlotRun& run, const TensorMap& view) const;
  /// What the slot will go on with after `progress` and no version brings: its view of the parameters that it
  /// does not adopt anew before its next step. The slot is active.
  TensorMap view_after(const SlotRun& run, const SlotProgress& progress);
  /// The method's local half on what the slot is about to bring, own rows by piece name: changes it, and what
  /// the slot goes on with.
  void before_push(SlotRun& run, Version from, TensorMap& part);
  std::int32_t owners_of(const std::string& param, Rows rows, Version version) const;
  /// Which coordinates a merge is about, of the model's parameters by name.
  Coordinates coordinates() const;
  /// Leaves of a contribution from a version what the merge is about, where that is not everything.
  void thin_out(TensorMap& part, Version from) const;
  Result<worker_event::Contributed> contribute(SlotRun& run, const worker_action::Contribute& action);
  bool is_of_model(const std::string& piece, const HostTensor& tensor) const;
  /// Pieces of a fetched blob of this head. Error: damaged, or of another model.
  Result<TensorMap> tensors_of(const FragmentHead& head, const BlobRef& blob);
  Status adopt(const worker_action::Adopt& action);
  void stop_with(const Error& error);

  WorkerMachine machine_;
  Endpoint& endpoint_;
  const Clock& clock_;
  Configure configure_;
  std::unique_ptr<SlotStore> store_;
  std::unique_ptr<WorkerParts> parts_;
  std::vector<RowSet> fragments_;  ///< the method's
  std::unique_ptr<Replica> replica_;
  std::unique_ptr<Trainer> trainer_;
  std::map<SlotId, SlotRun> runs_;
  std::map<Digest, Blob> blobs_;                    ///< fetched, until Forget
  std::map<Digest, worker_action::Fetch> updates_;  ///< under way, by the digest of the update
  std::optional<WorkerAction> pending_;             ///< the one work action that is not answered yet
  struct Evaluation {
    Evaluated sums;
    std::uint64_t next_batch = 0;
  };
  std::optional<Evaluation> evaluation_;  ///< under way
  double idle_seconds_ = 0;               ///< spent without work since the last inner step
  std::optional<worker_action::Exit> ended_;
};

}  // namespace tessera
