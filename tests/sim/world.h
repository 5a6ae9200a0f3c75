// A small world in virtual time: one coordinator (and its restarts), workers (and theirs), a network that
// loses, doubles, delays and cuts, a disk that keeps only what was written. Everything is a function of the
// seed, so a run replays exactly.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <queue>
#include <set>
#include <string>

#include "base/random.h"
#include "tests/sim/invariants.h"

namespace tessera::sim {

enum class Method { diloco, rotating, streaming, async, drop, streaming_drop, eager, sparta, decoupled };
/// In which merges close without the late ones.
inline bool is_drop(Method method) {
  return method == Method::drop || method == Method::streaming_drop || method == Method::decoupled;
}
/// Nothing that happens may change a bit.
inline bool is_exact(Method method) {
  return method == Method::diloco || method == Method::rotating || method == Method::streaming ||
         method == Method::eager || method == Method::sparta;
}
inline constexpr Method all_methods[] = {Method::diloco, Method::rotating, Method::streaming,
                                         Method::async,  Method::drop,     Method::streaming_drop,
                                         Method::eager,  Method::sparta,   Method::decoupled};
const char* name_of(Method method);
inline void PrintTo(Method method, std::ostream* out) {
  *out << name_of(method);
}

struct Scenario {
  std::uint64_t seed = 0;
  Method method = Method::diloco;
  bool faults = true;  ///< off: the undisturbed run
  std::optional<std::uint64_t> crash_coordinator_at,
      crash_worker_at;       ///< before the k-th action, undisturbed otherwise
  std::string crash_before;  ///< the first time that this point of Coverage is reached
  // Deliberate mistakes.
  Rules rules;
  ToyRules toy;
  std::ostream* story = nullptr;  ///< tells what happens, line by line
  bool forget_staged = false;     ///< a restart ignores what was staged but not sealed
};

/// (event, state of the merge, action) -> how often it was performed, and how often a crash came right before
/// it.
struct Coverage {
  struct Counts {
    std::uint64_t reached = 0, crashed = 0;
    std::uint64_t seed = 0;  ///< of a run that reached it
    Method method = Method::diloco;
  };
  std::map<std::string, Counts> coordinator, worker;
};

struct Outcome {
  std::string failure;  ///< empty: all invariants held, and the run came to its end
  std::map<FragmentId, std::vector<Digest>> chains;
  std::uint64_t events = 0, coordinator_actions = 0, worker_actions = 0;
  std::uint64_t coordinator_crashes = 0, worker_crashes = 0, stale = 0;
  std::uint64_t partial = 0;      ///< merges that left somebody out
  std::uint64_t shortened = 0;    ///< contributions of fewer steps than a round has
  std::uint64_t fingerprint = 0;  ///< of all that happened, in order: two replays must agree
  Duration took{};
};
Outcome run(const Scenario& scenario, Coverage* coverage = nullptr);
/// Ends with the line that replays the run.
std::string describe(const Scenario& scenario);

// ---- inside ----

/// What a seed lets go wrong.
struct Faults {
  double loss = 0, duplicate = 0, slow = 0;        ///< per message
  double worker_crash = 0, coordinator_crash = 0;  ///< per action
  double freeze = 0;                               ///< per worker action
  double zombie = 0;  ///< a crash is only a freeze: the old coordinator wakes up later
  double not_finite = 0, alien = 0, rot = 0, lost_state = 0, cut = 0;
  double away = 0;      ///< a worker that crashed stays away for long
  bool notices = true;  ///< a supervisor tells the coordinator of dead workers
};

struct Disk {
  std::vector<Record> log;
  Ledger ledger;  ///< the fold of the log
  Epoch newest_epoch;
  std::map<Digest, ToyContribution> staged;
  std::map<FragmentId, std::map<Version, ToyFragment>> committed;
  std::map<Digest, ToySlot> slot_states;
  std::map<std::pair<FragmentId, Version>, bool> rows;  ///< metrics.jsonl; with an evaluation?
};

struct CoordinatorProcess {
  State state;
  Incarnation incarnation;
  bool alive = true, frozen = false;
  std::vector<Event> inbox;         ///< while frozen
  std::vector<Action> interrupted;  ///< what it was about to do then
  std::map<Digest, ToyContribution> fetched;
  std::map<std::pair<FragmentId, Version>, Coordinates> offered;
  Instant tick_at = Instant::max();
};

struct WorkerProcess {
  WorkerProcess(std::int32_t index, WorkerIdentity identity, Incarnation incarnation)
      : index(index), incarnation(incarnation), machine(std::move(identity), incarnation) {}
  std::int32_t index;
  Incarnation incarnation;
  WorkerMachine machine;
  JobId job;
  Epoch epoch;
  bool alive = true;
  Instant frozen_until{};
  std::map<SlotId, ToySlot> slots;
  std::map<Digest, Coordinates> fetched;
  std::map<Digest, ToyContribution> offered;
  Instant tick_at = Instant::max();
};

class World {
 public:
  World(const Scenario& scenario, Coverage* coverage);
  Outcome run();

 private:
  using Coordinator = std::shared_ptr<CoordinatorProcess>;
  using Worker = std::shared_ptr<WorkerProcess>;

  // Time and chance (world.cpp).
  void draw_faults();
  CoordinatorSettings make_settings() const;
  WorkPlan make_plan() const;
  void later(Duration delay, std::function<void()> what);
  bool faulty() const { return scenario_.faults && now_ < heal_at_; }
  bool chance(double p) { return faulty() && random_.chance(p); }
  Duration between(double low_ms, double high_ms);
  Duration delay();
  std::uint64_t fragments() const {
    const Method m = scenario_.method;
    return m == Method::streaming || m == Method::streaming_drop || m == Method::decoupled ? 2 : 1;
  }
  void trace(std::uint64_t what);
  bool wants_context() const { return coverage_ || scenario_.story || !scenario_.crash_before.empty(); }
  bool crash_here(std::map<std::string, Coverage::Counts> Coverage::*who, const std::string& point,
                  bool by_chance);
  template <class... Parts>
  void tell(const Parts&... parts) {
    if (!scenario_.story) return;
    *scenario_.story << std::fixed << seconds(now_ - Instant{}) << "  ";
    (*scenario_.story << ... << parts) << "\n";
  }
  void cut_links();
  bool finished() const;

  // The coordinator's side (world_coordinator.cpp).
  void start_coordinator();
  Ledger recover();
  void reconcile_rows();
  void feed(Coordinator c, const Event& event);
  bool perform_all(const Coordinator& c, const std::vector<Action>& actions, const std::string& context);
  bool perform(const Coordinator& c, const Action& action, const std::string& context);
  void crash(const Coordinator& c);
  void thaw(const Coordinator& c);
  void to_worker(const CoordinatorProcess& from, PeerId to, const Message& message);
  void fetch_contribution(const Coordinator& c, PeerId from, const Offer& offer);
  void do_merge(const Coordinator& c, const SealedRecord& sealed);
  void append(const Coordinator& c, const Record& record);
  void schedule_tick(const Coordinator& c);
  std::string context_of(const State& state, const Event& event) const;

  // The workers' side (world_worker.cpp).
  void start_worker(std::int32_t index);
  void feed(Worker w, const WorkerEvent& event);
  void perform(const Worker& w, WorkerActions actions, const std::string& context);
  void crash(const Worker& w);
  void to_coordinator(const WorkerProcess& from, const Message& message);
  void do_work(const Worker& w, const WorkerAction& action);
  WorkerEvent finish_work(WorkerProcess& w, const WorkerAction& action);
  WorkerEvent contribute(WorkerProcess& w, const worker_action::Contribute& action);
  void fetch_parameters(const Worker& w, const BlobRef& blob);
  void exited(const Worker& w, const worker_action::Exit& exit);
  void schedule_tick(const Worker& w);

  Scenario scenario_;
  Coverage* coverage_;
  KeyedRandom random_;
  Faults faults_;
  std::int32_t slots_, workers_;
  CoordinatorSettings settings_;
  Instant now_{}, heal_at_{}, deadline_{};
  struct Scheduled {
    Instant at;
    std::uint64_t order;
    std::function<void()> what;
    bool operator<(const Scheduled& other) const {
      return std::tie(at, order) > std::tie(other.at, other.order);
    }
  };
  std::priority_queue<Scheduled> agenda_;
  std::uint64_t scheduled_ = 0, incarnations_ = 0;
  Disk disk_;
  Coordinator coordinator_;  ///< the newest
  std::vector<Worker> worker_;
  std::vector<bool> link_up_, link_down_;  ///< per worker: to and from the coordinator
  std::set<SlotId> was_not_finite_;
  bool crashed_there_ = false;  ///< at scenario_.crash_before
  std::optional<ExitCode> done_;
  Invariants invariants_;
  Outcome outcome_;
};

}  // namespace tessera::sim
