// A toy of everything that the protocol does not look into: parameters of one whole number per slot and a
// shared one, training that hashes, merges in whole numbers. Exact, fast, and every bit of the history shows
// in the result.
#pragma once
#include <cstdint>
#include <map>
#include <vector>

#include "coordinator/records.h"
#include "worker/protocol/worker_machine.h"

namespace tessera::sim {

using Coordinates = std::vector<std::int64_t>;  ///< [slots + 1]: slot k owns one (k, or the next each
                                                ///< version) and, with all others, the last

/// A committed version of a fragment.
struct ToyFragment {
  Coordinates theta, momentum;
  bool operator==(const ToyFragment&) const = default;
};
/// What a slot brings: the final values of its own and the shared coordinate, and those that it started from.
struct ToyContribution {
  SlotId slot;
  std::size_t coordinate = 0;  ///< the slot's own
  std::int64_t own = 0, shared = 0, own_start = 0, shared_start = 0;
  bool finite = true;
  Digest digest() const;
};
/// A slot at work; all of it is saved with the slot's state.
struct ToySlot {
  SlotProgress progress;
  std::size_t coordinate = 0;  ///< the slot's own at the version it adopted
  std::uint64_t moment = 0;
  std::uint64_t sample = 0;          ///< position in the slot's data
  std::uint64_t pushed_sample = 0;   ///< position at the last contribution
  std::vector<Coordinates> replica;  ///< per fragment
  std::vector<Coordinates> start;    ///< the versions that it adopted
  Digest digest() const;
};

/// Deliberate mistakes in the shell's arithmetic, for the mutation tests.
struct ToyRules {
  bool divide_by_owners = true;  ///< else by the number of slots
  bool hold_uncovered = true;    ///< else momentum moves where nobody contributed
};

Digest digest_of(const Coordinates& values);
Digest state_of(const ToyFragment& fragment);
ToyFragment initial_fragment(FragmentId fragment, std::int32_t slots);
void train_step(ToySlot& slot, SlotId id);
ToyContribution contribution_of(const ToySlot& slot, SlotId id, FragmentId fragment);
/// `changes`: what each slot changed, from wherever it started; else the difference to `before`.
ToyFragment merge(const ToyFragment& before, const std::vector<ToyContribution>& contributions, bool changes,
                  ToyRules rules = {});

}  // namespace tessera::sim
