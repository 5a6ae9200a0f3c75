// The coordinator: feeds decide() (decide.h) with what arrives and performs what it says, over an endpoint
// and a run directory. One thread. The loop is in pump(); a process calls it until done().
#pragma once
#include <ctime>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "comm/changes.h"
#include "comm/transport/endpoint.h"
#include "coordinator/decide.h"
#include "coordinator/hand_over.h"
#include "coordinator/merge.h"
#include "coordinator/run_store.h"
#include "monitoring/metrics.h"
#include "optim/outer.h"

namespace tessera {

/// Of what is measured: the clock that decisions go by stands still in debug mode.
inline Instant real_time() {
  return std::chrono::steady_clock::now();
}

struct CoordinatorParts {
  CoordinatorSettings settings;  ///< job zero: that of the log, or a fresh one
  RunStoreSettings store;
  std::vector<ParamSpec> specs;
  std::shared_ptr<const OuterMethod> method;
  MergeSettings merge{};
  HandOver hand_over{};
  Wire up{}, down{};                       ///< contributions, and updates of published versions
  std::function<RowSet(Version)> trained;  ///< rows that some slot owns at a version; empty: all
  TensorMap initial;                       ///< parameters before training, F32 by name
  /// Versions are saved while workers go on with them already. Needs what is staged to be as durable as what
  /// is saved; changes no bit.
  bool saves_later = false;
  std::string slots_folder;  ///< RUN/slots where workers share it; empty: slot states lie with the workers
  std::string host;  ///< this machine and pid namespace, as workers on it say in Hello; empty: unknown
  std::string unit = "units";
};

class Coordinator {
 public:
  /// Opens the run directory and recovers what is in it: a sealed merge is redone, a run whose slot states
  /// are lost goes back to its newest checkpoint. Errors: another coordinator holds the directory, damage, a
  /// log of another model.
  static Result<std::unique_ptr<Coordinator>> open(CoordinatorParts parts, Endpoint& endpoint,
                                                   const Clock& clock, Metrics& metrics);
  void start();
  /// Handles all that has arrived, waiting for the first arrival until `wait_until` or the next deadline at
  /// most.
  void pump(Instant wait_until);
  /// Starts nothing new, checkpoints, ends with ExitCode::resumable.
  void drain(const std::string& reason);
  bool done() const { return finish_.has_value(); }
  /// How it ended; done() is true.
  const action::Finish& finish() const { return *finish_; }
  const State& state() const { return state_; }
  /// The newest version is published and not yet known to be saved.
  bool is_saving() const { return saving_.has_value(); }

 private:
  Coordinator(CoordinatorParts parts, std::unique_ptr<RunStore> store, Endpoint& endpoint, const Clock& clock,
              Metrics& metrics);

  // Recovery (recover.cpp).
  Status recover();
  Status check_same_run(const OpenRecord& record) const;
  Status load_committed(Ledger& ledger);
  Status load_version(FragmentId fragment, Version version);
  Status ensure_slot_states(Ledger& ledger);
  Status roll_back(Ledger& ledger, const std::string& reason);
  Status reconcile_rows(const Ledger& ledger);
  std::vector<Digest> initial_chains() const;

  void feed(const Event& event);
  void take(const Arrival& arrival);
  void blob_arrived(const BlobArrived& arrival);
  void finish_fetch(SlotId slot);
  void notice_dead_workers(Instant now);
  void fail_with(const Error& error);

  Status perform(const Action& action);
  Status perform(const action::Merge& merge);
  Status perform(const action::Checkpoint& checkpoint);
  void count(const action::Count& count);
  void record_metrics(const CommitRecord& commit);
  void record_checkpoint(double took_seconds, double bytes);
  void update_gauges();

  // Making versions (make_version.cpp).
  struct Made {
    MergeOutcome outcome;
    TensorMap update;  ///< what is published instead of all parameters; empty: nothing
  };
  Result<Made> make_version(const SealedRecord& sealed);
  Result<std::vector<MergeInput>> inputs_of(const SealedRecord& sealed);
  Status make_again(const CommitRecord& commit);
  void save_later(FragmentId fragment, Version version, TensorMap tensors, Duration made_in);
  void start_saving();
  Status go_on_saving();
  Status finish_saving();
  Status discard(const std::vector<StagedRecord>& merged);

  // What blobs consist of (contents.cpp).
  /// Parameters and outer state of a fragment, by the names of pieces that its state digest is made over;
  /// sharing memory.
  TensorMap fragment_state(FragmentId fragment) const;
  TensorMap fragment_parameters(FragmentId fragment) const;
  RowSet weights_of(FragmentId fragment) const;
  TensorMap initial_outer_state() const;
  /// The F32 tensors of a contribution. Error: damaged.
  Result<TensorMap> contribution_of(const MergeKey& key, const Buffer& bytes, const std::string& where) const;
  /// Makes a merged fragment what its update carries of the change from `base`; the update's tensors.
  TensorMap round_update(FragmentId fragment, const TensorMap& base, const RowSet& unmoved);
  /// The same where only some coordinates travel.
  TensorMap sparse_update_to(FragmentId fragment, Version version) const;
  /// Makes the pieces of a contribution whole that some coordinates of came.
  Status fill_in(const MergeKey& key, const RowSet& expected, TensorMap& tensors) const;
  /// Parameters and moments of a contribution are those of the rows that the slot owns.
  Status validate(const MergeKey& key, TensorMap tensors, bool is_finite) const;
  /// The encoded state of a slot: as it came with a contribution, or from the slots folder where workers
  /// share it.
  Result<Buffer> slot_state(SlotId slot, const Digest& digest) const;
  /// The same for a slot that is away in mode drop: as the newest checkpoint has it, or fresh. `digest`
  /// becomes that of what is returned; zero and nothing for fresh.
  std::optional<Buffer> older_slot_state(SlotId slot, Digest& digest) const;
  void keep_slot_state(SlotId slot, const Digest& digest, const Buffer& state);
  bool all_were_exact() const;
  /// `update`: the tensors of an update on the newest published version; empty: there is none.
  FragmentHead offer_head(FragmentId fragment, Version version, const Digest& chain, const Blob& parameters,
                          TensorMap update = {});
  /// What workers get of a version, parameters and the moments that it hands over, and its file.
  TensorMap published(FragmentId fragment, Version version) const;
  Blob parameters_blob(const TensorMap& published, TensorDigests* digests = nullptr) const;
  TensorMap handed_over(FragmentId fragment, Version version) const;
  void part(const char* name, Version from, Instant begin);
  std::string row_of(const CommitRecord& commit, const std::optional<Evaluated>& evaluated) const;

  CoordinatorParts parts_;
  std::unique_ptr<RunStore> store_;
  Endpoint& endpoint_;
  const Clock& clock_;
  Metrics& metrics_;
  Merger merger_;
  std::vector<RowSet> fragments_;
  State state_;
  event::Start start_;
  TensorMap theta_, outer_;  ///< committed parameters and outer state, by name
  struct Fetching {
    PeerId from;
    Offer offer;
    std::map<Digest, Blob> blobs;  ///< arrived so far
    bool is_finite = false;        ///< BlobArrived::is_finite of the contribution
    TensorMap tensors;             ///< of the contribution, once it is found valid
    std::string failure;
    std::size_t outstanding = 0;
    Instant begin{};
  };
  std::map<SlotId, Fetching> fetching_;
  std::map<MergeKey, Fetching> fetched_;  ///< valid, to be staged
  std::map<MergeKey, TensorMap> staged_;  ///< the same, until they are merged
  /// For the next checkpoint: encoded states by digest.
  std::map<SlotId, std::map<Digest, Buffer>> slot_states_;
  struct PhaseSeconds {
    double wire = 0;    ///< of all contributions, from asking for one to having it
    double commit = 0;  ///< snapshot and offer
    std::map<std::string, double>
        parts;  ///< of these and of merge; of all contributions where there are several
    std::vector<double> step_by_slot;  ///< of compute; 0: the slot brought nothing
  };
  std::map<Version, PhaseSeconds> phases_;  ///< of the merges of this process, by the version they made
  std::map<std::pair<FragmentId, Version>, std::vector<Digest>> offered_;
  struct Saving {
    FragmentId fragment;
    Version version;
    TensorMap tensors;                 ///< sharing memory with theta_ and outer_
    Instant due;                       ///< to begin
    std::future<Result<double>> took;  ///< seconds
    std::vector<StagedRecord> merged;  ///< what it was made of, until it is saved
  };
  std::optional<Saving> saving_;
  std::optional<action::Finish> finish_;
  Instant next_look_{};
  std::clock_t used_ = std::clock();  ///< processor time of the process at the last merge
};

}  // namespace tessera
