#include "coordinator/ledger.h"

#include <algorithm>

#include "base/error.h"
#include "comm/hash.h"

namespace tessera {
namespace {

struct Apply {
  Ledger& ledger;

  void operator()(const OpenRecord& record) { ledger.epoch = record.epoch; }
  void operator()(const FactsRecord& record) { ledger.facts = record.facts; }
  void operator()(const LeaseRecord& record) {
    ledger.slot(record.slot).attempt = record.attempt;
    ledger.slot(record.slot).holder = record.holder;
    ledger.slot(record.slot).behind = false;
  }
  void operator()(const StagedRecord& record) {
    SlotLedger& slot = ledger.slot(record.key.slot);
    SlotLedger::Given& given = slot.given[record.key.fragment.value];
    slot.newest = ++ledger.staged_so_far;
    ledger.fragment(record.key.fragment).staged.push_back({record, slot.newest, slot.state, given});
    given = {record.key.version, record.digest};
    slot.state = record.slot_state;
    if (record.work.steps > 0)
      slot.step_seconds = record.work.compute_seconds / static_cast<double>(record.work.steps);
    slot.rejections = 0;
  }
  void operator()(const LostRecord& record) {
    std::vector<StagedEntry>& staged = ledger.fragment(record.key.fragment).staged;
    auto lost = std::find_if(staged.begin(), staged.end(), [&](const StagedEntry& entry) {
      return entry.record.key.slot == record.key.slot && entry.record.key.version == record.key.version;
    });
    if (lost == staged.end()) return;
    if (!ledger.can_take_back(*lost)) {  // the slot went on from it, and the merge does without
      staged.erase(lost);
      return;
    }
    take_back(record.key.slot, lost->order);
    // Its worker was told that it is taken; only a new attempt makes it again.
    ledger.slot(record.key.slot).attempt.value += 1;
  }
  /// Takes back what a slot staged, newest first, down to `order`.
  void take_back(SlotId id, std::uint64_t order) {
    SlotLedger& slot = ledger.slot(id);
    while (slot.newest >= order) {
      const StagedEntry* newest = nullptr;
      for (FragmentLedger& fragment : ledger.fragments) {
        for (const StagedEntry& entry : fragment.staged) {
          if (entry.record.key.slot == id && (!newest || entry.order > newest->order)) newest = &entry;
        }
      }
      if (!newest || newest->order < order) break;
      const StagedEntry entry = *newest;
      slot.state = entry.state_before;
      slot.given[entry.record.key.fragment.value] = entry.given_before;
      slot.newest = entry.order - 1;
      std::erase_if(ledger.fragment(entry.record.key.fragment).staged,
                    [&](const StagedEntry& other) { return other.order == entry.order; });
    }
  }
  void operator()(const RejectedRecord& record) {
    SlotLedger& slot = ledger.slot(record.key.slot);
    if (slot.rejected_attempt != record.key.attempt) slot.rejections += 1;
    slot.rejected = record.digest;
    slot.rejected_attempt = record.key.attempt;
  }
  void operator()(const FreshRecord& record) { ledger.slot(record.slot).state = Digest{}; }
  void operator()(const SealedRecord& record) {
    FragmentLedger& fragment = ledger.fragment(record.fragment);
    fragment.sealed = record;
    fragment.held = record.held;
    for (SlotId slot : record.left_out) ledger.slot(slot).behind = true;
    std::erase_if(fragment.staged, [&](const StagedEntry& entry) {
      return std::find(record.contributions.begin(), record.contributions.end(), entry.record) !=
             record.contributions.end();
    });
  }
  void operator()(const CommitRecord& record) {
    FragmentLedger& fragment = ledger.fragment(record.fragment);
    if (fragment.sealed) {
      for (const StagedRecord& staged : fragment.sealed->contributions) {
        ledger.slot(staged.key.slot).committed_state = staged.slot_state;
      }
    }
    fragment.sealed.reset();
    fragment.version = record.version;
    fragment.chain = record.chain;
    if (record.evaluate) fragment.unrated = record;
  }
  void operator()(const EvaluatedRecord& record) {
    for (FragmentLedger& fragment : ledger.fragments) {
      if (fragment.unrated && fragment.unrated->version == record.evaluated.version) fragment.unrated.reset();
    }
  }
  void operator()(const RollbackRecord& record) {
    for (std::size_t f = 0; f < ledger.fragments.size(); ++f) {
      ledger.fragments[f] = FragmentLedger{};
      ledger.fragments[f].version = record.fragments[f].version;
      ledger.fragments[f].chain = record.fragments[f].chain;
    }
    for (std::size_t k = 0; k < ledger.slots.size(); ++k) {
      SlotLedger& slot = ledger.slots[k];
      slot.attempt.value += 1;  // whoever still works on a later version is out of date
      slot.holder = {};
      slot.state = slot.committed_state = record.slot_states[k];
      slot.given.assign(ledger.fragments.size(), {});
      slot.newest = 0;
      slot.rejections = 0;
      slot.behind = false;
    }
  }
};

}  // namespace

Ledger::Ledger(std::int32_t slot_count, const std::vector<Digest>& initial_chains)
    : slots(slot_count), fragments(initial_chains.size()) {
  for (SlotLedger& slot : slots) slot.given.resize(fragments.size());
  for (std::size_t f = 0; f < fragments.size(); ++f) fragments[f].chain = initial_chains[f];
}

bool Ledger::can_take_back(const StagedEntry& entry) const {
  const SlotId id = entry.record.key.slot;
  std::uint64_t newest = 0;
  for (const FragmentLedger& fragment : fragments) {
    for (const StagedEntry& other : fragment.staged) {
      if (other.record.key.slot == id) newest = std::max(newest, other.order);
    }
  }
  return newest == slot(id).newest;
}

std::vector<Digest> Ledger::unmerged() const {
  std::vector<Digest> digests;
  for (const FragmentLedger& fragment : fragments) {
    for (const StagedEntry& entry : fragment.staged) digests.push_back(entry.record.digest);
    if (!fragment.sealed) continue;
    for (const StagedRecord& record : fragment.sealed->contributions) digests.push_back(record.digest);
  }
  return digests;
}

void Ledger::apply(const Record& record) {
  std::visit(Apply{*this}, record);
}

Digest chain_digest(const Digest& previous, const Digest& state,
                    const std::vector<StagedRecord>& contributions) {
  Hasher hasher;
  hasher.add(previous).add(state);
  for (const StagedRecord& contribution : contributions) hasher.add(contribution.slot_state);
  return hasher.digest();
}

}  // namespace tessera
