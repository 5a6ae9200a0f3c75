// The worker's half of the protocol as a pure machine: events in, actions out; no socket, clock, thread, file
// or tensor. The real worker (worker/) and the simulator's toy worker (tests/sim) perform the same actions.
// Torch-free.
//
// How to drive it, blocking or from a pump():
//   perform(machine.start(now));
//   loop: if there is a pending work action   -> do (a slice of) it, perform(machine.handle(its answer, now))
//         else wait in endpoint.receive(machine.wake_at());
//         every arrival                       -> perform(machine.handle(Arrived | FetchDone, now))
//         whenever now >= machine.wake_at()   -> perform(machine.handle(Tick{}, now))
// perform() runs the actions in order. *Work actions* (Configure, Restore, Run, Contribute, Evaluate) are
// answered by exactly one event each, and the machine never has two of them outstanding; so remember the one
// you are given and do it when you like, in slices if it is long: answer Run with fewer steps than asked,
// Evaluate with no result yet, and the machine asks again. Between slices, poll the endpoint and tick. What
// a work action needs (its slot, its blobs) is neither released nor forgotten before its answer. All other
// actions are done at once and have no answer.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "comm/messages.h"

namespace tessera {

/// What a worker brings to its first Hello.
struct WorkerIdentity {
  std::string build;
  std::string host;
  std::int64_t pid = 0;
  std::int32_t capacity = 1;                              ///< slots it is willing to hold
  Digest recipe;                                          ///< zero: the coordinator sends it
  Duration first_retry = std::chrono::milliseconds(250);  ///< between Hellos until Welcome names the lease
  Duration lost_after = std::chrono::minutes(10);         ///< without a coordinator for so long: exit 75
};

/// The local half of a method, as the machine sees it: OuterMethod::due with strong types.
struct Duties {
  std::vector<FragmentId> adopt;  ///< before the step
  std::vector<FragmentId> push;   ///< after the step
};
struct WorkPlan {
  std::int32_t fragments = 1;
  Version rounds;  ///< no fragment goes beyond this version
  /// The step that a slot without history begins with at these newest versions: OuterMethod::step_at.
  std::function<std::int64_t(const std::vector<Version>& heads)> step_at;
  /// Slots take the fast values (FragmentHead::fast) of every version, since several slots own each slice.
  /// Otherwise a slot has its own, and fetches them only when it begins on this worker.
  bool fast_for_all = false;
  /// Slots keep their own clocks: one that merges were made without goes on as it would have.
  bool own_clocks = false;
  /// Of the many versions a slot fetches one when it is to adopt it. Otherwise all are fetched at once.
  bool fetch_when_due = false;
  /// H, where slots are given fewer steps (Grant, Taken): they begin at its multiples, and leave out the
  /// rest.
  std::int64_t round_steps = 0;
  std::function<Duties(std::int64_t step)> duties;
};

/// Where a slot is in its life. Part of the saved slot state, so that whoever takes the slot over continues
/// the same schedule.
struct SlotProgress {
  std::int64_t step = 0;         ///< inner steps done
  std::vector<Version> adopted;  ///< per fragment
  std::vector<Version> pushed;   ///< per fragment: version of the last contribution; -1: none yet
  bool operator==(const SlotProgress&) const = default;
};

/// What happened to a worker.
namespace worker_event {
struct Arrived {  ///< a message of the coordinator (transport's Received)
  Header header;
  Message message;
};
struct FetchDone {  ///< answer to Fetch; ok: the blob is kept by the driver until it Adopts or Restores with
                    ///< it
  Digest digest;
  bool ok = true;
  std::string reason;
};
struct Tick {};  ///< now >= wake_at()
struct Quit {    ///< SIGTERM: leave in good order
  std::string reason;
};
// Answers to work actions.
struct Configured {  ///< recipe understood, data open, model made
  WorkPlan plan;
  Ready ready;
};
struct ConfigureFailed {
  ExitCode code = ExitCode::refused_recipe;
  std::string reason;
};
struct Restored {  ///< progress as saved; none when the slot was asked to start fresh
  SlotId slot;
  Attempt attempt;
  std::optional<SlotProgress> progress;
};
struct RestoreFailed {  ///< the slot state is not here or damaged
  SlotId slot;
  Attempt attempt;
  std::string reason;
};
struct Ran {
  SlotId slot;
  Attempt attempt;
  std::int64_t steps = 0;  ///< done of those asked, at least 1
};
struct Contributed {
  struct Part {
    FragmentId fragment;
    BlobRef blob;  ///< offered on the endpoint until Withdraw
  };
  SlotId slot;
  Attempt attempt;
  std::vector<Part> parts;                 ///< one per fragment asked, in that order
  Digest slot_state;                       ///< of the stored state, progress included
  std::optional<BlobRef> slot_state_blob;  ///< where save_state was asked
  Work work;                               ///< since the slot's previous Contribute
};
struct EvaluationDone {  ///< no result: a slice is done, ask again
  std::optional<Evaluated> result;
};
}  // namespace worker_event
using WorkerEvent = std::variant<worker_event::Arrived, worker_event::FetchDone, worker_event::Tick,
                                 worker_event::Quit, worker_event::Configured, worker_event::ConfigureFailed,
                                 worker_event::Restored, worker_event::RestoreFailed, worker_event::Ran,
                                 worker_event::Contributed, worker_event::EvaluationDone>;

/// What a worker does.
namespace worker_action {
struct Send {  ///< to the coordinator
  Message message;
};
struct Identify {  ///< header fields from now on
  JobId job;
  Epoch epoch;
};
struct Fetch {  ///< from the coordinator; verified against the digest, then FetchDone
  BlobRef blob;
  /// Fetch this instead and make the blob of it and of the base, which was fetched and is not forgotten
  /// before the answer, unless a newer version has come meanwhile.
  std::optional<FragmentHead::Update> update{};
};
struct Forget {  ///< a fetched blob that nothing will name again
  Digest digest;
};
struct Withdraw {  ///< an offered blob (contribution or slot state) that is durable elsewhere
  Digest digest;
};
struct Adopt {  ///< put a committed fragment (fetched) in place for a slot
  SlotId slot;
  FragmentHead head;
  bool fast = false;  ///< and the head's fast values (fetched), where it has some
};
struct Release {  ///< forget a slot: it is no longer held
  SlotId slot;
};
struct Note {  ///< for the text log
  std::string text;
  bool warning = false;
};
struct Count {  ///< a stale message changed nothing: why
  std::string reason;
};
struct Exit {  ///< the last action: end the process (or the debug-mode worker) with this code
  ExitCode code = ExitCode::done;
  std::string reason;
};
// Work actions.
struct Configure {     ///< parse the recipe, open the data, make the model
  std::string recipe;  ///< TOML; empty when the worker's own was confirmed
};
struct Restore {  ///< (re)start a slot, replacing what this worker had of it
  SlotId slot;
  Attempt attempt;
  RowSet owned;
  Digest state;                 ///< zero: fresh
  std::optional<BlobRef> blob;  ///< already fetched; else look into the slots folder
};
struct Run {  ///< inner steps [first, first + steps) of a slot; `first` is also the schedule's position
  SlotId slot;
  Attempt attempt;
  std::int64_t first = 0;
  std::int64_t steps = 0;
};
struct Contribute {  ///< store the slot's state with `progress`, make and offer one contribution per fragment
  SlotId slot;
  Attempt attempt;
  std::vector<KnownVersion> fragments;  ///< with the adopted version each starts from
  SlotProgress progress;
  bool save_state = false;
};
struct Evaluate {  ///< held-out loss of these committed parameters (fetched)
  Version version;
  std::vector<FragmentHead> heads;
};
}  // namespace worker_action
using WorkerAction =
    std::variant<worker_action::Send, worker_action::Identify, worker_action::Fetch, worker_action::Forget,
                 worker_action::Withdraw, worker_action::Adopt, worker_action::Release, worker_action::Note,
                 worker_action::Count, worker_action::Exit, worker_action::Configure, worker_action::Restore,
                 worker_action::Run, worker_action::Contribute, worker_action::Evaluate>;
using WorkerActions = std::vector<WorkerAction>;
/// Whether the action is answered by an event.
bool is_work(const WorkerAction& action);

class WorkerMachine {
 public:
  WorkerMachine(WorkerIdentity identity, Incarnation incarnation);
  WorkerActions start(Instant now);
  WorkerActions handle(const WorkerEvent& event, Instant now);
  /// When it wants a Tick at the latest.
  Instant wake_at() const;
  bool exited() const { return life_ == Life::exited; }
  Incarnation incarnation() const { return incarnation_; }
  /// Slots held now, with their attempts.
  std::vector<HeldSlot> held() const;

 private:
  enum class Life { greeting, configuring, joined, exited };
  struct Unanswered {
    Offer offer;
    Instant next_send{};
  };
  struct Slot {
    std::uint64_t instance = 0;  ///< of this grant: answers to work of an earlier one are void
    Attempt attempt;
    RowSet owned;
    Digest state;  ///< to start from; afterwards the newest that was stored
    std::optional<BlobRef> state_blob;
    bool restored = false;
    bool fresh = false;             ///< restored without a state: it begins with the newest heads
    bool broken = false;            ///< GrantFailed was said; a new attempt is awaited
    bool idle = false;              ///< rejected; a new attempt is awaited
    bool contribute_due = false;    ///< the step before progress.step ended with a push
    bool came_back = false;         ///< restored with a state: merges may have been made without it meanwhile
    std::set<FragmentId> has_fast;  ///< its own values of what is cut are on this worker
    std::int64_t given_steps = 0;   ///< of its next contribution; 0: all
    std::map<FragmentId, FragmentHead> aims;  ///< fetch_when_due: versions that it is about to adopt
    SlotProgress progress;
    std::deque<Unanswered> unanswered;  ///< in order; only the first is on its way
  };

  // Messages.
  void dispatch(const WorkerEvent& event);
  void arrived(const worker_event::Arrived& event);
  bool is_stale(const worker_event::Arrived& event);
  void on(const Welcome& message, const Header& header);
  void on(const Refused& message);
  void on(const Grant& message);
  void on(const Publish& message);
  void on(const Taken& message);
  void on(const Rejected& message);
  void on(const Revoke& message);
  void on(const HeartbeatAck& message);
  void on(const Stop& message);
  void joined_only(const Message& message);
  // Answers.
  void fetch_done(const worker_event::FetchDone& event);
  void configured(const worker_event::Configured& event);
  void restored(const worker_event::Restored& event);
  void restore_failed(const worker_event::RestoreFailed& event);
  void ran(const worker_event::Ran& event);
  void contributed(const worker_event::Contributed& event);
  void evaluation_done(const worker_event::EvaluationDone& event);
  void tick();

  // Work.
  void next_work();
  bool work_on(SlotId id, Slot& slot);
  bool start_slot(SlotId id, Slot& slot);
  bool begin_fresh(SlotId id, Slot& slot);
  std::vector<Version> newest_versions() const;
  bool catch_up(SlotId id, Slot& slot);
  bool adopt_what_is_due(SlotId id, Slot& slot, const Duties& duties);
  bool all_heads_fetched();
  const FragmentHead* aim_at(Slot& slot, FragmentId fragment, Version required);
  void give_up(const Digest& aim);
  void drop_offers_to(FragmentId fragment);
  bool evaluate();
  void request_evaluation(Version version);
  bool finished(const Slot& slot) const;
  std::int64_t steps_left(const Slot& slot, std::int64_t at_most) const;
  std::vector<KnownVersion> wanted_pushes(const Slot& slot) const;

  void say_hello();
  void send_heartbeat();
  void send_first_offer(Slot& slot);
  void learn_head(const FragmentHead& head, bool save_state);
  void want(const BlobRef& blob, const std::optional<FragmentHead::Update>& update = std::nullopt);
  void want_fast_values();
  bool lacks_fast(const Slot& slot, const FragmentHead& head) const;
  bool can_adopt(const Slot& slot, FragmentId fragment) const;
  bool can_adopt(const Slot& slot, const FragmentHead& head) const;
  void adopt(SlotId id, Slot& slot, const FragmentHead& head);
  bool have(const Digest& digest) const;
  void forget_unused();
  void leave(ExitCode code, const std::string& reason);
  void drop_offers(Slot& slot);
  Slot* worked_on(SlotId slot);
  void work(const Slot& slot, WorkerAction action);
  void work_is_done();
  void release(SlotId slot);
  void forget(const Digest& digest);
  Slot* slot_of(SlotId slot, Attempt attempt);
  Duration retry() const;
  void emit(WorkerAction action);

  WorkerIdentity identity_;
  Incarnation incarnation_;
  Life life_ = Life::greeting;
  JobId job_;
  Epoch epoch_;
  bool welcome_ = false;  ///< of this epoch
  Duration lease_{};      ///< zero until Welcome
  Instant now_{};
  Instant heard_{};  ///< when the coordinator last spoke
  Instant next_hello_{}, next_heartbeat_{};
  std::optional<WorkPlan> plan_;
  std::optional<Ready> ready_;
  std::map<SlotId, Slot> slots_;
  std::optional<SlotId> turn_;  ///< the slot that has the replica
  struct Head {
    FragmentHead head;
    bool save_state = false;  ///< contributions that start from it bring the slot's state
  };
  std::map<FragmentId, Head> heads_;
  struct Wanted {
    BlobRef blob;
    std::optional<FragmentHead::Update> update;  ///< the short way that is being tried
    bool fetching = false;
    Instant retry_at{};
  };
  std::map<Digest, Wanted> wanted_;  ///< blobs on their way
  std::set<Digest> fetched_;
  std::optional<Version> evaluate_;     ///< asked, not done
  std::optional<Evaluated> evaluated_;  ///< the newest result, for those who ask again
  std::uint64_t steps_ = 0;
  bool working_ = false;  ///< a work action is outstanding
  std::uint64_t working_instance_ = 0, instances_ = 0;
  std::vector<SlotId> release_later_;  ///< until the outstanding work is answered
  std::set<Digest> forget_later_;
  WorkerActions actions_;
};

}  // namespace tessera
