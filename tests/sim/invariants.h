// What must hold in every run, checked at every step: I1-I9 of the fault model, as far as one process tree
// can show them. The first violation is kept as a sentence.
#pragma once
#include <map>
#include <set>
#include <string>

#include "coordinator/decide.h"
#include "tests/sim/toy.h"

namespace tessera::sim {

class Invariants {
 public:
  /// `settings` are those that a correct coordinator of this run has.
  Invariants(CoordinatorSettings settings, std::int32_t fragments);

  const std::string& failure() const { return failure_; }
  void fail(const std::string& what);

  /// A contribution that a worker made, by digest: what a replay merges.
  void made(const ToyContribution& contribution) { made_[contribution.digest()] = contribution; }
  /// Durable log, record by record; `log` is the fold after it.
  void appended(const Record& record, const Ledger& log);
  /// A message left a coordinator.
  void coordinator_sent(const Message& message, const Ledger& log);
  /// A merge begins.
  void merging(const SealedRecord& sealed, const Ledger& log);
  /// A merge is done: what nobody brought must have kept its bits, parameter and momentum.
  void merged(const SealedRecord& sealed, const ToyFragment& before, const ToyFragment& after);
  /// A row of metrics.jsonl is written: it must show that the merge was partial.
  void row(const CommitRecord& commit);
  /// The coordinator did all that an event asked for: its memory must be the fold of the log (I1).
  void settled(const State& state, const Ledger& log);
  /// A stale message was handled: it may have changed nothing (I4).
  void after_stale(const event::Arrived& event, const Ledger& before, const State& state,
                   const Decision& decision);
  /// Whether a message is stale for a coordinator in this state, by the rules of the protocol.
  bool is_stale(const event::Arrived& event, const State& state) const;
  /// A worker put parameters in place (I3).
  void adopted(const FragmentHead& head, const Coordinates& theta);
  /// Bounded memory (I7).
  void bounded(const State& state, std::size_t offered);

  const std::map<FragmentId, std::vector<Digest>>& chains() const { return chains_; }
  /// Contributions of fewer steps than a whole round.
  std::uint64_t shortened() const { return shortened_; }

 private:
  void check_seal(const SealedRecord& sealed);
  void check_absent(const SealedRecord& sealed);
  void check_commit(const CommitRecord& commit, const SealedRecord& sealed);
  void check_head(const FragmentHead& head, const Ledger& log);

  CoordinatorSettings settings_;
  std::string failure_;
  std::uint64_t shortened_ = 0;
  std::map<Digest, ToyContribution> made_;
  std::map<FragmentId, ToyFragment> replayed_;                    // by our own merges, from the log
  std::map<FragmentId, std::vector<Digest>> chains_;              // [version]
  std::map<FragmentId, std::vector<Coordinates>> history_;        // [version]
  std::map<FragmentId, SealedRecord> sealed_;                     // newest
  std::map<std::pair<FragmentId, SlotId>, std::int64_t> absent_;  // merges in a row
  std::set<std::tuple<SlotId, FragmentId, Version>> applied_;
  std::map<std::pair<SlotId, FragmentId>, std::uint64_t> sample_;  // end of what is committed
  std::map<std::pair<FragmentId, Version>, Digest> adopted_;
};

}  // namespace tessera::sim
