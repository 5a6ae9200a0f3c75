// The coordinator's disk: merge log, committed states, staged contributions, checkpoints and metrics.jsonl of
// a run directory. Bytes only; what they mean is decided elsewhere (decide.h).
//
//   log/*.log                    the merge log                     log/epoch-N        coordinators so far
//   log/state-F-V.safetensors    parameters and outer state of fragment F at version V, the two newest
//   log/staged/DIGEST.safetensors   contributions that are acknowledged
//                                (or, where they came through shared memory: SHARED/kept-DIGEST)
//   checkpoints/NNNNNNNN/        parameters, outer, slot-KK; the manifest holds the ledger's position
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/storage/checkpoint_store.h"
#include "comm/storage/directory_lock.h"
#include "comm/storage/record_log.h"
#include "coordinator/records.h"

namespace tessera {

struct RunStoreSettings {
  Path run;  ///< the run directory
  Durability durability = Durability::process;
  std::size_t keep = 3;  ///< checkpoints
  Digest model;          ///< digest of the parameter specs: checkpoints of other models are refused
  Path shared;           ///< folder of shared memory where contributions may stay; empty: none
};

class RunStore {
 public:
  /// Takes the run directory's lock, claims the next epoch, reads the log. Errors: another coordinator
  /// (fenced), damage.
  static Result<std::unique_ptr<RunStore>> open(const RunStoreSettings& settings);

  ~RunStore();

  Epoch epoch() const { return epoch_; }
  /// All records of former coordinators, in order.
  const std::vector<Record>& records() const { return records_; }
  /// Names the job whose checkpoints are written and accepted.
  void set_job(const JobId& job);

  /// Durable when it returns. Error: fenced by a newer coordinator, or storage.
  Status append(const Record& record);

  Status save_state(FragmentId fragment, Version version, const TensorMap& tensors);
  Result<TensorMap> load_state(FragmentId fragment, Version version) const;

  /// `lies_in`: a file in shared memory that holds these bytes and that nobody changes any more, or empty.
  /// What need not outlast the machine then stays there.
  Status stage(const Digest& digest, Bytes contribution, const Path& lies_in = {});
  Result<Buffer> staged(const Digest& digest) const;
  /// Its file is used for a later one.
  Status discard(const Digest& digest);
  /// Writes what stays in shared memory into the run directory: that memory is about to go.
  Status settle(const std::vector<Digest>& staged);
  /// Nothing more will be staged.
  void remove_spares();
  /// Removes staged files that none of `wanted` names.
  Status discard_all_but(const std::vector<Digest>& wanted);

  Status write_checkpoint(Version version, const Shards& shards, const std::string& position);
  bool has_checkpoint(Version version) const;
  /// The newest complete checkpoint at or below a version; `skipped` says which newer ones were no good and
  /// why.
  std::optional<Checkpoint> newest_checkpoint(Version at_most, std::vector<std::string>& skipped) const;

  /// Appends one line to metrics.jsonl.
  Status write_row(const std::string& line);
  /// Lines of metrics.jsonl, and replacing them all.
  Result<std::vector<std::string>> rows() const;
  Status replace_rows(const std::vector<std::string>& lines);

 private:
  RunStore(RunStoreSettings settings, DirectoryLock lock, Epoch epoch, OpenedLog log);
  Path state_file(FragmentId fragment, Version version) const;
  Path staged_file(const Digest& digest) const;
  Path kept_file(const Digest& digest) const;
  bool is_kept(const Digest& digest) const;

  RunStoreSettings settings_;
  DirectoryLock lock_;
  Epoch epoch_;
  RecordLog log_;
  std::vector<Record> records_;
  std::unique_ptr<CheckpointStore> checkpoints_;
  std::vector<Path> spares_;  ///< files of staged contributions that are discarded
};

/// The shard of a checkpoint that holds a slot's state: "slot-03".
std::string slot_shard(SlotId slot);

}  // namespace tessera
