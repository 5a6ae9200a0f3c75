// A coordinator's pure core on the bench: feeds events, keeps the actions, answers Fetch and Merge when asked
// to.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "comm/hash.h"
#include "coordinator/decide.h"

namespace tessera {

inline CoordinatorSettings bench_settings(std::int32_t slots, std::int32_t workers) {
  CoordinatorSettings settings;
  settings.job = {1, 2};
  settings.build = "build";
  settings.recipe = {3, 4};
  settings.recipe_text = "slots = 2";
  settings.rounds = Version{3};
  settings.evaluate = false;
  settings.expected_workers = workers;
  settings.slot_count = slots;
  settings.owned = [](SlotId, Version) { return RowSet{{"w", {Rows{0, 1}}}}; };
  return settings;
}

class ProtocolBench {
 public:
  explicit ProtocolBench(CoordinatorSettings settings, Epoch epoch = Epoch{1})
      : ProtocolBench(settings, Ledger(settings.slots(), {chain_digest({}, {0, 7}, {})}), epoch) {}
  ProtocolBench(CoordinatorSettings settings, Ledger ledger, Epoch epoch)
      : state(settings, std::move(ledger)) {
    const FragmentLedger& fragment = state.ledger.fragments[0];
    feed(event::Start{epoch, {FragmentHead{{}, fragment.version, {{0, 8}, 4, ""}, fragment.chain}}, {}});
  }

  const Decision& feed(const Event& event) {
    decision = decide(state, event, now);
    return decision;
  }
  const Decision& from(std::uint64_t worker, const Message& message) {
    return feed(
        event::Arrived{{worker, 0}, Header{state.settings.job, state.epoch, {worker, 0}, 0}, message});
  }
  /// Greets and is ready.
  void join(std::uint64_t worker, std::int32_t capacity = 1) {
    from(worker, Hello{"build", "host", 1, capacity, {}, {}});
    from(worker, Ready{{5, 6}, "numerics"});
  }
  Offer offer(std::int32_t slot, std::uint64_t content, Version version = {}) const {
    Offer offer;
    offer.key = {SlotId{slot}, {}, version, state.ledger.slots[slot].attempt};
    offer.contribution = {{content, 1}, 8, ""};
    offer.slot_state = {content, 2};
    return offer;
  }
  /// Offered, fetched, and found to be good.
  const Decision& give(std::int32_t slot, std::uint64_t content, Version version = {}) {
    const Offer given = offer(slot, content, version);
    from(state.ledger.slots[slot].holder.high, given);
    return feed(event::Fetched{given.key, given.contribution.digest, event::Fetched::Outcome::good, "", ""});
  }
  const Decision& refuse(std::int32_t slot, std::uint64_t content) {
    const Offer given = offer(slot, content);
    from(state.ledger.slots[slot].holder.high, given);
    return feed(event::Fetched{given.key, given.contribution.digest, event::Fetched::Outcome::refused,
                               "mlp.up", "not finite"});
  }
  const Decision& merged(Version version) {
    const std::uint64_t v = static_cast<std::uint64_t>(version.value);
    return feed(event::Merged{{}, version, {v, 7}, {{v, 8}, 4, ""}, 0, 0});
  }

  template <class A>
  std::vector<A> all() const {
    std::vector<A> found;
    for (const Action& action : decision.actions) {
      if (const auto* a = std::get_if<A>(&action)) found.push_back(*a);
    }
    return found;
  }
  /// Messages of one kind in the last decision.
  template <class M>
  std::vector<M> sent() const {
    std::vector<M> found;
    for (const action::Send& send : all<action::Send>()) {
      if (const auto* m = std::get_if<M>(&send.message)) found.push_back(*m);
    }
    return found;
  }
  /// "Stage Append:staged Send:Taken ...": the order of what is done, without notes and counts.
  std::string order() const;
  std::vector<std::string> stale() const {
    std::vector<std::string> why;
    for (const action::Count& count : all<action::Count>()) {
      if (count.what == action::Count::What::stale) why.push_back(count.label);
    }
    return why;
  }

  State state;
  Instant now{};
  Decision decision;
};

inline std::string ProtocolBench::order() const {
  static constexpr const char* records[] = {"open",  "facts",  "lease",  "staged",    "lost",    "rejected",
                                            "fresh", "sealed", "commit", "evaluated", "rollback"};
  std::string order;
  for (const Action& action : decision.actions) {
    std::string word;
    if (const auto* append = std::get_if<action::Append>(&action)) word = records[append->record.index()];
    if (const auto* send = std::get_if<action::Send>(&action)) word = message_name(send->message);
    if (std::holds_alternative<action::Stage>(action)) word = "STAGE";
    if (std::holds_alternative<action::Fetch>(action)) word = "FETCH";
    if (std::holds_alternative<action::Merge>(action)) word = "MERGE";
    if (std::holds_alternative<action::Row>(action)) word = "ROW";
    if (std::holds_alternative<action::Checkpoint>(action)) word = "CHECKPOINT";
    if (std::holds_alternative<action::Finish>(action)) word = "FINISH";
    if (!word.empty()) order += (order.empty() ? "" : " ") + word;
  }
  return order;
}

}  // namespace tessera
