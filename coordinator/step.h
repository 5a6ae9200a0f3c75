// One call of decide(), as an object: the state, the time, and the decision under construction. Private to
// the coordinator; decide.cpp has the events, leases.cpp workers and slots, merge_machine.cpp the way of a
// contribution into a version, drop_mode.cpp what happens to those that do not come, late.cpp to
// those that come late.
#pragma once
#include <string>

#include "coordinator/decide.h"

namespace tessera {

class Step {
 public:
  Step(State& state, Instant now, Decision& out) : s_(state), now_(now), out_(out) {}

  // Events (decide.cpp).
  void start(const event::Start& event);
  void arrived(const event::Arrived& event);
  void tick();
  void worker_died(const event::WorkerDied& event);
  void drain(const event::Drain& event);
  // Events (merge_machine.cpp).
  void fetched(const event::Fetched& event);
  void merged(const event::Merged& event);

 private:
  // Messages from workers. `from` is known to belong to this job and epoch (Hello aside).
  struct From {
    PeerId peer;
    Incarnation incarnation;
  };
  bool acceptable(const event::Arrived& event);
  void message(const From& from, const Message& message);
  void on(const From& from, const Hello& hello);
  void on(const From& from, const Ready& ready);
  void on(const From& from, const Heartbeat& heartbeat);
  void on(const From& from, const Offer& offer);
  void on(const From& from, const Evaluated& evaluated);
  void on(const From& from, const GrantFailed& failed);
  void on(const From& from, const Leave& leave);

  // Leases.
  bool is_held(SlotId slot) const;
  std::set<SlotId> slots_of(const Incarnation& incarnation) const;
  void assign(const std::string& reason);
  void lease(SlotId slot, const Incarnation& holder, const std::string& reason);
  void lease_again(SlotId slot, const std::string& reason);
  void grant(SlotId slot);
  void bring_up_to_date(SlotId slot);
  void say_who_waits(std::size_t waiting);
  void send_what_it_missed(const From& from, const Heartbeat& heartbeat);
  std::optional<Incarnation> evaluator() const;

  // Merges.
  bool is_offer_of_holder(const From& from, const Offer& offer);
  bool was_given(const From& from, const Offer& offer);
  bool fits_version(const MergeKey& key);
  void alarm(const From& from, const Offer& offer);
  void reject(const State::Pending& pending, const std::string& tensor, const std::string& reason);
  void stage(const State::Pending& pending);
  void try_close(FragmentId fragment);
  void try_close_all();
  std::vector<StagedRecord> chosen(FragmentId fragment) const;
  void close(FragmentId fragment, std::vector<StagedRecord> contributions);

  // Mode drop.
  std::optional<std::string> why_without_others(FragmentId fragment,
                                                const std::vector<StagedRecord>& there) const;
  void name_the_absent(SealedRecord& sealed);
  std::vector<HeldSlice> held_by(const SealedRecord& sealed) const;
  void alarm_about(const SealedRecord& sealed, const std::vector<HeldSlice>& held_before);

  // Late contributions.
  bool waits_for_merge(const MergeKey& key) const;
  bool must_come_back(SlotId slot) const;
  void tell_what_is_merged(const SealedRecord& sealed);
  void retire(FragmentId fragment, Version old);
  bool brings_state(Version from) const;
  std::int64_t steps_of(SlotId slot) const;

  void publish(FragmentId fragment);
  Publish publication(FragmentId fragment, const Incarnation& to) const;
  bool wants_evaluation(FragmentId fragment, const Incarnation& from) const;

  // Endings.
  void finish_if_done();
  void stop(ExitCode code, const std::string& reason);
  void finish(ExitCode code, const std::string& reason);
  void finish_if_alone();

  void append(const Record& record);
  void send(const Incarnation& to, const Message& message);
  void stale(const std::string& why);
  void note(const std::string& text, bool warning = false);
  void because(const std::string& reason);
  template <class A>
  void emit(A action) {
    out_.actions.push_back(std::move(action));
  }

  State& s_;
  Instant now_;
  Decision& out_;
};

}  // namespace tessera
