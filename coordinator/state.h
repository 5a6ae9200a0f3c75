// The coordinator as a value: settings, durable ledger, and what is lost with the process. Events come in,
// decide() (decide.h) changes the state and says what to do. Nothing here has a socket, clock, thread, file
// or tensor.
#pragma once
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
#include "comm/transport/endpoint.h"
#include "coordinator/ledger.h"
#include "coordinator/membership.h"

namespace tessera {

/// What protects the run, switchable so that the simulator can prove that each rule is needed. Always all on
/// outside tests.
struct Rules {
  bool check_job = true, check_epoch = true, check_holder = true, check_attempt = true, check_version = true;
  bool deduplicate = true;  ///< a contribution that was taken is not taken again
  bool alarm_on_other_digest = true;
  bool stage_before_taken = true;  ///< acknowledge only what is durable
  bool seal_before_merge = true;
  bool commit_before_publish = true;
  bool slot_order = true;       ///< merge in slot order, not in order of arrival
  bool wait_for_all = true;     ///< exact mode waits for every slot
  bool name_the_absent = true;  ///< drop mode: the log says who was left out before the merge begins
  bool new_attempt_per_lease = true;
};

enum class Mode { exact, drop };

struct CoordinatorSettings {
  JobId job;
  std::string build;        ///< workers of another build are refused
  Digest recipe;            ///< of `recipe_text`
  std::string recipe_text;  ///< resolved recipe, sent with Welcome
  Version rounds;           ///< the run ends when every fragment has this version
  Mode mode = Mode::exact;
  std::int32_t quorum = 0;  ///< drop mode: contributions without which no merge closes; 0: two thirds
  Duration deadline{};      ///< drop mode: for the others, once the quorum is there; 0: see drop_deadline()
  std::int32_t arrivals_per_merge = 0;       ///< 0: one of every slot; n: the first n
  bool takes_late = false;                   ///< OuterMethod::takes_late
  std::optional<GraceWindow> window{};       ///< drop mode: instead of a deadline
  std::optional<DynamicSteps> dynamic{};     ///< OuterMethod::dynamic_steps
  std::int64_t eval_every = 0;               ///< in versions; 0: only the last
  bool evaluate = true;                      ///< there is something to evaluate on
  std::int64_t checkpoint_every = 0;         ///< in versions; 0: only the last
  Duration lease = std::chrono::seconds(2);  ///< the one failure-detection setting
  std::int32_t expected_workers = 1;         ///< slots are first handed out when so many are ready
  std::int32_t slot_count = 0;
  std::function<RowSet(SlotId, Version)> owned;  ///< what a slot trains that works on from a version
  bool fast_for_all = false;  ///< fast values are not only their single owner's: everybody fetches them
  /// What a fragment holds of each slice, as it is owned from a version on; null: no slice is named.
  std::function<std::vector<Slice>(FragmentId, Version)> slices;
  Rules rules;

  std::int32_t slots() const { return slot_count; }
  // Every other timeout derives from the lease.
  Duration patience() const { return 15 * lease; }  ///< for expected workers that do not come
  Duration grace() const { return 2 * lease; }      ///< drop mode: after the quorum
  bool any_version() const { return takes_late || arrivals_per_merge > 0; }
  std::int32_t needed() const { return quorum > 0 ? quorum : (2 * slots() + 2) / 3; }
  bool evaluation_due(Version version) const {
    return evaluate && (version == rounds || (eval_every > 0 && version.value % eval_every == 0));
  }
  bool checkpoint_due(Version version) const {
    return version == rounds || (checkpoint_every > 0 && version.value % checkpoint_every == 0);
  }
};

// ---- events ----

namespace event {
/// First event after the ledger was recovered: what the shell found on disk.
struct Start {
  Epoch epoch;                      ///< freshly claimed
  std::vector<FragmentHead> heads;  ///< the ledger's committed versions, offered for fetching
  std::vector<Digest> missing;      ///< staged contributions that are not in the staging folder, or damaged
};
struct Arrived {
  PeerId peer;
  Header header;
  Message message;
};
/// Answer to Fetch.
struct Fetched {
  enum class Outcome { good, unreachable, refused };
  MergeKey key;
  Digest digest;
  Outcome outcome = Outcome::good;  ///< refused: not finite, or not the rows that the slot owns
  std::string tensor, reason;
};
/// Answer to Merge.
struct Merged {
  FragmentId fragment;
  Version version;     ///< the new one
  Digest state;        ///< state_digest of parameters and outer state, which are durable
  BlobRef parameters;  ///< offered for fetching
  std::int64_t uncovered = 0;
  double seconds = 0;
  std::optional<BlobRef> fast{};                 ///< offered too, where owners keep values of their own
  std::optional<FragmentHead::Update> update{};  ///< offered too, where updates are encoded
  OuterReport outer{};
  double delta_norm = 0;
};
struct Tick {};  ///< now >= wake_at(state)
struct WorkerDied {
  Incarnation incarnation;
};  ///< a supervisor saw its process end
struct Drain {
  std::string reason;
};  ///< Ctrl-C, SIGTERM, preemption
}  // namespace event
using Event = std::variant<event::Start, event::Arrived, event::Fetched, event::Merged, event::Tick,
                           event::WorkerDied, event::Drain>;

// ---- actions ----

/// Performed strictly in order; each is done (Append, Stage: durable) before the next begins.
namespace action {
struct Append {
  Record record;
};
struct Send {
  PeerId to;
  Message message;
};
struct Fetch {
  PeerId from;
  Offer offer;
};  ///< contribution (and slot state, where offered); then Fetched
struct Stage {
  MergeKey key;
  Digest digest;
};  ///< put the fetched contribution durably into the staging folder
struct Merge {
  SealedRecord sealed;
};  ///< compute, make durable, offer; then Merged
struct Retire {
  FragmentId fragment;
  Version version;
};  ///< nobody will ask for this version's parameters again
struct Row {
  CommitRecord commit;
  std::optional<Evaluated> evaluated;
};  ///< a line of metrics.jsonl
struct Checkpoint {
  FragmentId fragment;
  Version version;
};  ///< of the current ledger
struct Discard {
  std::vector<StagedRecord> contributions;
};              ///< their staged files have done their duty
struct Count {  ///< for monitoring
  enum class What { stale, rejected, recovery };
  What what;
  std::string label;
};
struct Note {
  std::string text;
  bool warning = false;
};  ///< for the text log
struct Finish {
  ExitCode code = ExitCode::done;
  std::string reason;
};  ///< the last one
}  // namespace action
using Action = std::variant<action::Append, action::Send, action::Fetch, action::Stage, action::Merge,
                            action::Retire, action::Row, action::Checkpoint, action::Discard, action::Count,
                            action::Note, action::Finish>;

// ---- state ----

struct State {
  CoordinatorSettings settings;
  Ledger ledger;
  Epoch epoch;
  Membership members;
  struct Fragment {
    FragmentHead head;
    bool merging = false;  ///< SEALED, Merged not yet back
    Instant opened{};
    std::optional<Instant> quorum_at{};  ///< drop mode
    // For the grace window: when the first contribution was there, when the merge was sealed, what the last
    // one took from then to its commit, and the window that was chosen with the quorum.
    std::optional<Instant> first_at{};
    Instant sealed_at{};
    Duration merge_took{}, wait{};
  };
  std::vector<Fragment> fragments;
  struct Pending {  ///< an offer that is being fetched
    Offer offer;
    PeerId peer;
  };
  std::map<SlotId, Pending> pending;
  std::map<SlotId, std::int32_t> failed_grants;  ///< in a row
  std::set<Incarnation> dead;  ///< a supervisor saw them end: what still arrives of them is void
  struct Ending {
    ExitCode code;
    std::string reason;
    Instant until;  ///< workers that have not left by then are left behind
  };
  std::optional<Ending> ending;
  bool started = false;
  bool finished = false;
  std::size_t waiting = 0;  ///< slots that nobody has room for, as last said
  Instant since{};          ///< of Start
  Instant ticked{};         ///< of the last Tick

  State() = default;
  State(CoordinatorSettings settings, Ledger recovered);
  Version version(FragmentId fragment) const { return ledger.fragment(fragment).version; }
  FragmentId last_fragment() const { return {static_cast<std::int32_t>(fragments.size()) - 1}; }
};

/// When decide() wants a Tick at the latest.
Instant wake_at(const State& state);
/// Drop mode: when a merge that has its quorum closes without the others: sync.deadline later, or without
/// that two leases, or half the time that the quorum took if that is longer; with a grace window after that.
Instant drop_deadline(const State& state, const State::Fragment& fragment);
/// How long a merge with a quorum may wait so that the quickest of the slots that came does not notice:
/// share * (steps * its step time - from the first contribution to the quorum - the last merge), clamped.
Duration grace_of(const GraceWindow& window, const std::vector<StagedEntry>& there, Duration quorum_took,
                  Duration merge_took);
/// What a fragment holds of each slice.
std::vector<Slice> slices_of_fragment(const Plan& plan, const RowSet& fragment);

}  // namespace tessera
