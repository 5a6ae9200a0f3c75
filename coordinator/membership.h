// Who is there: workers by incarnation, when they were last heard, how many slots they take. Lost with the
// process; workers introduce themselves again to a new coordinator.
#pragma once
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "comm/transport/endpoint.h"

namespace tessera {

struct Member {
  PeerId peer;  ///< of its latest message
  Instant heard{};
  bool ready = false;  ///< understood the recipe, has the right data
  bool alive = true;   ///< heard within a lease
  std::int32_t capacity = 1;
  std::uint64_t joined = 0;  ///< order of the first Hello
  std::int64_t pid = 0;
  std::string host;
};

class Membership {
 public:
  /// Creates or revives a member.
  Member& join(const Incarnation& incarnation, PeerId peer, Instant now);
  /// The member, or null.
  Member* find(const Incarnation& incarnation);
  const Member* find(const Incarnation& incarnation) const;
  /// Heard from it: alive again.
  void heard(Member& member, PeerId peer, Instant now);
  void remove(const Incarnation& incarnation) { members_.erase(incarnation); }
  /// Alive and ready: may hold slots.
  bool serving(const Incarnation& incarnation) const;
  std::int32_t serving_count() const;
  /// Marks those not heard for a lease as lost and returns them; forgets those lost for ten.
  std::vector<Incarnation> expire(Instant now, Duration lease);
  /// When the next one expires.
  std::optional<Instant> next_expiry(Duration lease) const;
  const std::map<Incarnation, Member>& all() const { return members_; }
  bool empty() const { return members_.empty(); }

  /// Spreads free slots evenly: each goes to the serving member with room that holds the fewest (earliest
  /// joined first). `held` says how many slots each holds; `avoid` names a member per slot that is asked only
  /// when nobody else has room.
  std::map<SlotId, Incarnation> spread(const std::set<SlotId>& free, std::map<Incarnation, std::int32_t> held,
                                       const std::map<SlotId, Incarnation>& avoid) const;

 private:
  std::map<Incarnation, Member> members_;
  std::uint64_t joins_ = 0;
};

}  // namespace tessera
