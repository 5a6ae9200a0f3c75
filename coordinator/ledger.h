// The coordinator's durable state, as a fold over its log: apply() is the only way that it changes, whether a
// record was just appended or is read back after a crash. So a restart continues exactly where the log ends.
#pragma once
#include <map>
#include <optional>
#include <vector>

#include "coordinator/records.h"

namespace tessera {

struct SlotLedger {
  Attempt attempt;  ///< of the newest lease; 0: never leased
  Incarnation holder;
  Digest state;            ///< after its newest staged contribution; zero: fresh
  Digest committed_state;  ///< after its newest committed contribution
  struct Given {
    Version version{-1};
    Digest digest;
    bool operator==(const Given&) const = default;
  };
  std::vector<Given> given;     ///< newest staged contribution, per fragment
  std::uint64_t newest = 0;     ///< order of its newest staged contribution
  std::int32_t rejections = 0;  ///< in a row
  Digest rejected;              ///< digest of the last rejected contribution
  Attempt rejected_attempt;     ///< and the attempt that brought it
  double step_seconds = 0;      ///< of its newest staged contribution; 0: not known
  bool behind = false;  ///< left out of a merge since its newest lease: that attempt's work is in vain
  bool operator==(const SlotLedger&) const = default;
};

struct StagedEntry {
  StagedRecord record;
  std::uint64_t order = 0;  ///< among all that were ever staged
  Digest state_before;      ///< of the slot, for LostRecord
  SlotLedger::Given given_before;
  bool operator==(const StagedEntry&) const = default;
};

struct FragmentLedger {
  Version version;
  Digest chain;
  std::vector<StagedEntry> staged;      ///< waiting for a merge, in order of arrival
  std::optional<SealedRecord> sealed;   ///< decided, not yet committed
  std::optional<CommitRecord> unrated;  ///< committed, its evaluation not yet there
  std::vector<HeldSlice> held;          ///< by the newest sealed merge
  bool operator==(const FragmentLedger&) const = default;
};

struct Ledger {
  Epoch epoch;
  std::optional<Ready> facts;
  std::vector<SlotLedger> slots;
  std::vector<FragmentLedger> fragments;
  std::uint64_t staged_so_far = 0;

  Ledger() = default;
  /// Before the first record; `initial_chains` are the chain digests of version 0, one per fragment.
  Ledger(std::int32_t slots, const std::vector<Digest>& initial_chains);
  void apply(const Record& record);
  /// Whether this staged contribution can be made again, should it be lost: nothing that the slot made after
  /// it is sealed or committed.
  bool can_take_back(const StagedEntry& entry) const;
  /// Digests of the contributions that are acknowledged and not yet merged.
  std::vector<Digest> unmerged() const;
  SlotLedger& slot(SlotId id) { return slots[id.value]; }
  const SlotLedger& slot(SlotId id) const { return slots[id.value]; }
  FragmentLedger& fragment(FragmentId id) { return fragments[id.value]; }
  const FragmentLedger& fragment(FragmentId id) const { return fragments[id.value]; }
  bool operator==(const Ledger&) const = default;
};

/// The state hash of a version: xxh3-128 over the previous version's chain digest, the state digest of the
/// fragment's parameters and outer state ("NAME" and "momentum/NAME", comm/hash.h: state_digest), and the
/// slot state digests of the merged contributions in slot order; each digest as two little-endian 64-bit
/// words, high first. Version 0 has the zero digest before it and no slot states.
Digest chain_digest(const Digest& previous, const Digest& state,
                    const std::vector<StagedRecord>& contributions);

}  // namespace tessera
