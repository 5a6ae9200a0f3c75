#include "coordinator/membership.h"

#include <algorithm>

namespace tessera {

Member& Membership::join(const Incarnation& incarnation, PeerId peer, Instant now) {
  auto [found, is_new] = members_.try_emplace(incarnation);
  if (is_new) found->second.joined = ++joins_;
  heard(found->second, peer, now);
  return found->second;
}

Member* Membership::find(const Incarnation& incarnation) {
  auto found = members_.find(incarnation);
  return found == members_.end() ? nullptr : &found->second;
}

const Member* Membership::find(const Incarnation& incarnation) const {
  auto found = members_.find(incarnation);
  return found == members_.end() ? nullptr : &found->second;
}

void Membership::heard(Member& member, PeerId peer, Instant now) {
  member.peer = peer;
  member.heard = now;
  member.alive = true;
}

bool Membership::serving(const Incarnation& incarnation) const {
  const Member* member = find(incarnation);
  return member && member->alive && member->ready;
}

std::int32_t Membership::serving_count() const {
  return static_cast<std::int32_t>(std::count_if(members_.begin(), members_.end(), [](const auto& entry) {
    return entry.second.alive && entry.second.ready;
  }));
}

std::vector<Incarnation> Membership::expire(Instant now, Duration lease) {
  std::vector<Incarnation> lost;
  for (auto& [incarnation, member] : members_) {
    if (!member.alive || now - member.heard < lease) continue;
    member.alive = false;
    lost.push_back(incarnation);
  }
  std::erase_if(members_, [&](const auto& entry) { return now - entry.second.heard >= 10 * lease; });
  return lost;
}

std::optional<Instant> Membership::next_expiry(Duration lease) const {
  std::optional<Instant> next;
  for (const auto& [incarnation, member] : members_) {
    if (!member.alive) continue;
    const Instant at = member.heard + lease;
    if (!next || at < *next) next = at;
  }
  return next;
}

std::map<SlotId, Incarnation> Membership::spread(const std::set<SlotId>& free,
                                                 std::map<Incarnation, std::int32_t> held,
                                                 const std::map<SlotId, Incarnation>& avoid) const {
  std::map<SlotId, Incarnation> assigned;
  for (SlotId slot : free) {
    auto avoided = avoid.find(slot);
    const std::pair<const Incarnation, Member>* best = nullptr;
    auto rank = [&](const std::pair<const Incarnation, Member>& entry) {
      const bool last_resort = avoided != avoid.end() && avoided->second == entry.first;
      return std::make_tuple(last_resort, held[entry.first], entry.second.joined);
    };
    for (const auto& entry : members_) {
      if (!serving(entry.first) || held[entry.first] >= entry.second.capacity) continue;
      if (!best || rank(entry) < rank(*best)) best = &entry;
    }
    if (!best) continue;
    assigned[slot] = best->first;
    held[best->first] += 1;
  }
  return assigned;
}

}  // namespace tessera
