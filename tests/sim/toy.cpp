#include "tests/sim/toy.h"

#include "base/random.h"
#include "comm/hash.h"

namespace tessera::sim {

Digest digest_of(const Coordinates& values) {
  return tessera::digest_of(std::as_bytes(std::span(values)));
}

Digest ToyContribution::digest() const {
  return digest_of(Coordinates{slot.value, static_cast<std::int64_t>(coordinate), own, shared, own_start,
                               shared_start, finite ? 1 : 0});
}

Digest ToySlot::digest() const {
  Coordinates all{progress.step, static_cast<std::int64_t>(coordinate), static_cast<std::int64_t>(moment),
                  static_cast<std::int64_t>(sample)};
  for (Version version : progress.adopted) all.push_back(version.value);
  for (Version version : progress.pushed) all.push_back(version.value);
  for (const Coordinates& fragment : replica) all.insert(all.end(), fragment.begin(), fragment.end());
  return digest_of(all);
}

Digest state_of(const ToyFragment& fragment) {
  Coordinates all = fragment.theta;
  all.insert(all.end(), fragment.momentum.begin(), fragment.momentum.end());
  return digest_of(all);
}

ToyFragment initial_fragment(FragmentId fragment, std::int32_t slots) {
  ToyFragment initial{Coordinates(slots + 1), Coordinates(slots + 1, 0)};
  for (std::int32_t i = 0; i <= slots; ++i) {
    initial.theta[i] =
        static_cast<std::int64_t>(key_of({std::uint64_t(fragment.value), std::uint64_t(i)}) % 100000);
  }
  return initial;
}

void train_step(ToySlot& slot, SlotId id) {
  std::uint64_t key =
      key_of({std::uint64_t(id.value), slot.moment, slot.sample, std::uint64_t(slot.progress.step)});
  for (const Coordinates& fragment : slot.replica) {
    for (std::int64_t value : fragment) key = mix64(key ^ static_cast<std::uint64_t>(value));
  }
  slot.moment = key;
  slot.sample += 1;
  for (Coordinates& fragment : slot.replica) {
    key = mix64(key);
    fragment[slot.coordinate] += static_cast<std::int64_t>(key % 2001) - 1000;
    fragment.back() += static_cast<std::int64_t>((key >> 20) % 2001) - 1000;
  }
}

ToyContribution contribution_of(const ToySlot& slot, SlotId id, FragmentId fragment) {
  const Coordinates& replica = slot.replica[fragment.value];
  const Coordinates& start = slot.start[fragment.value];
  return {id,          slot.coordinate, replica[slot.coordinate], replica.back(), start[slot.coordinate],
          start.back()};
}

ToyFragment merge(const ToyFragment& before, const std::vector<ToyContribution>& contributions, bool changes,
                  ToyRules rules) {
  ToyFragment after = before;
  const std::size_t slots = before.theta.size() - 1;
  for (std::size_t i = 0; i <= slots; ++i) {
    std::int64_t sum = 0, owners = 0;
    for (const ToyContribution& c : contributions) {
      const bool is_shared = i == slots;
      if (!is_shared && c.coordinate != i) continue;
      // As in floating point, the order of the sum shows in the result.
      const std::int64_t start = !changes ? before.theta[i] : is_shared ? c.shared_start : c.own_start;
      sum = (sum * 31) / 32 + (start - (is_shared ? c.shared : c.own)) * 33;
      owners += 1;
    }
    if (owners == 0 && rules.hold_uncovered) continue;
    const std::int64_t divisor =
        rules.divide_by_owners ? std::max<std::int64_t>(owners, 1) : std::int64_t(slots);
    const std::int64_t delta = sum / divisor;
    after.momentum[i] = before.momentum[i] * 9 / 10 + delta;
    after.theta[i] = before.theta[i] - (delta + after.momentum[i] * 9 / 10) * 7 / 330;
  }
  return after;
}

}  // namespace tessera::sim
