// What the merge log says, record by record. The log is the truth: the coordinator's durable state is a fold
// over it (ledger.h), live and after a restart, and `replay` re-runs it. Payloads are JSON text
// (record_codec.h).
#pragma once
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "comm/messages.h"
#include "optim/outer.h"

namespace tessera {

/// A coordinator took over.
struct OpenRecord {
  Epoch epoch;
  JobId job;
  std::int32_t slots = 0;
  std::int32_t fragments = 0;
  auto operator<=>(const OpenRecord&) const = default;
};
/// What the first worker found; the others must agree.
struct FactsRecord {
  Ready facts;
  auto operator<=>(const FactsRecord&) const = default;
};
/// A slot was leased. Whatever an earlier attempt still sends is void.
struct LeaseRecord {
  SlotId slot;
  Attempt attempt;
  Incarnation holder;
  std::string reason;
  auto operator<=>(const LeaseRecord&) const = default;
};
/// A contribution lies in the staging folder; from here on its slot's state is `slot_state`.
struct StagedRecord {
  MergeKey key;  ///< its version is the one that the slot had adopted
  Digest digest;
  std::uint64_t size = 0;
  Digest slot_state;
  Work work;
  auto operator<=>(const StagedRecord&) const = default;
};
/// A staged contribution is gone or damaged: it and what the slot staged after it will be made again, by the
/// slot's next attempt, which begins with this record. Where the slot's later work is sealed or committed
/// already (mode drop with a method that takes contributions late), the merge does without it instead.
struct LostRecord {
  MergeKey key;
  std::string reason;
  auto operator<=>(const LostRecord&) const = default;
};
/// A contribution was refused.
struct RejectedRecord {
  MergeKey key;
  Digest digest;
  std::string tensor, reason;
  auto operator<=>(const RejectedRecord&) const = default;
};
/// A slot's state is lost; it starts again with fresh moments (drop mode only).
struct FreshRecord {
  SlotId slot;
  std::string reason;
  auto operator<=>(const FreshRecord&) const = default;
};
/// A slice that no contribution of a merge holds: its parameters and outer state stay as they are, bit for
/// bit.
struct HeldSlice {
  std::string name;         ///< "blocks.3.mlp/units[512:1024]"
  std::int64_t merges = 0;  ///< in a row, this one included
  auto operator<=>(const HeldSlice&) const = default;
};
/// The merge that makes version + 1 is decided: exactly these contributions, in slot order.
struct SealedRecord {
  FragmentId fragment;
  Version version;
  std::vector<StagedRecord> contributions;
  // Drop mode; empty when everybody is there.
  std::vector<SlotId> left_out;  ///< who was not waited for, ascending
  std::vector<HeldSlice> held;   ///< slices with owners, none of whom is there; in the plan's order
  std::string reason;            ///< why it closes without them
  bool operator==(const SealedRecord&) const = default;
};
/// Sums over a merge's contributions, and how long it took: the material of a row of metrics.jsonl.
struct MergeTotals {
  Work work;
  std::int32_t contributions = 0;
  std::uint64_t bytes_up = 0, bytes_down = 0;  ///< of the contributions; of the parameters to every holder
  double round_seconds = 0;                    ///< since the previous commit of the fragment
  double merge_seconds = 0;
  std::int64_t uncovered = 0;  ///< trained coordinates that nobody contributed to
  double delta_norm = 0;       ///< L2 norm of the merged delta (or gradient)
  /// Where contributions may be late: versions made since each one's start, in the sealed record's order.
  std::vector<std::int64_t> staleness;
  OuterReport outer;
  auto operator<=>(const MergeTotals&) const = default;
};
/// The merge is done and its result durable.
struct CommitRecord {
  FragmentId fragment;
  Version version;        ///< the new one
  Digest state;           ///< state_digest of the fragment's parameters and outer state
  Digest chain;           ///< ledger.h: chain_digest
  bool evaluate = false;  ///< a held-out loss is due
  MergeTotals totals;
  std::vector<SlotId> left_out;  ///< as sealed
  std::vector<HeldSlice> held;
  auto operator<=>(const CommitRecord&) const = default;
};
struct EvaluatedRecord {
  Evaluated evaluated;
  auto operator<=>(const EvaluatedRecord&) const = default;
};

/// The run goes back to a checkpoint, because a slot's state of a later version is nowhere to be found. What
/// came after it will be made again, bit for bit.
struct RollbackRecord {
  struct Point {
    Version version;
    Digest chain;
    auto operator<=>(const Point&) const = default;
  };
  std::vector<Point> fragments;
  std::vector<Digest> slot_states;
  std::string reason;
  auto operator<=>(const RollbackRecord&) const = default;
};

using Record = std::variant<OpenRecord, FactsRecord, LeaseRecord, StagedRecord, LostRecord, RejectedRecord,
                            FreshRecord, SealedRecord, CommitRecord, EvaluatedRecord, RollbackRecord>;

}  // namespace tessera
