// The workers' half of the simulated world: what a real worker does for the worker machine.
#include "tests/sim/world.h"

namespace tessera::sim {
namespace act = worker_action;
namespace ev = worker_event;
namespace {

std::string kind_of(const WorkerEvent& event) {
  if (const auto* arrived = std::get_if<ev::Arrived>(&event)) return message_name(arrived->message);
  static constexpr const char* names[] = {"Arrived",    "FetchDone",       "Tick",          "Quit",
                                          "Configured", "ConfigureFailed", "Restored",      "RestoreFailed",
                                          "Ran",        "Contributed",     "EvaluationDone"};
  return names[event.index()];
}

const char* kind_of(const WorkerAction& action) {
  static constexpr const char* names[] = {"Send",      "Identify", "Fetch", "Forget",     "Withdraw",
                                          "Adopt",     "Release",  "Note",  "Count",      "Exit",
                                          "Configure", "Restore",  "Run",   "Contribute", "Evaluate"};
  return names[action.index()];
}

}  // namespace

void World::start_worker(std::int32_t index) {
  if (done_) return;
  WorkerIdentity identity;
  identity.build = "toy";
  identity.host = "host" + std::to_string(index);
  identity.pid = index;
  identity.capacity = (slots_ + workers_ - 1) / workers_;
  identity.lost_after = std::chrono::seconds(20);
  auto w = std::make_shared<WorkerProcess>(index, identity, Incarnation{5, ++incarnations_});
  worker_[index] = w;
  perform(w, w->machine.start(now_), "start");
  schedule_tick(w);
}

void World::feed(Worker w, const WorkerEvent& event) {
  if (!w->alive || !invariants_.failure().empty()) return;
  if (now_ < w->frozen_until) {
    later(w->frozen_until - now_, [this, w, event] { feed(w, event); });
    return;
  }
  trace(1000 + event.index());
  perform(w, w->machine.handle(event, now_), wants_context() ? kind_of(event) : "");
  if (w->alive) schedule_tick(w);
}

void World::perform(const Worker& w, WorkerActions actions, const std::string& context) {
  for (const WorkerAction& action : actions) {
    const bool by_chance =
        scenario_.crash_worker_at == outcome_.worker_actions++ || chance(faults_.worker_crash);
    if (crash_here(&Coverage::worker, wants_context() ? "worker " + context + " -> " + kind_of(action) : "",
                   by_chance)) {
      tell("  W", w->index, " crashes before ", kind_of(action));
      return crash(w);
    }
    tell("  W", w->index, " ", context, " -> ", kind_of(action));
    if (chance(faults_.freeze)) w->frozen_until = now_ + between(50, 1500);
    trace(2000 + action.index());
    if (is_work(action)) {
      do_work(w, action);
    } else if (const auto* send = std::get_if<act::Send>(&action)) {
      to_coordinator(*w, send->message);
    } else if (const auto* identify = std::get_if<act::Identify>(&action)) {
      w->job = identify->job;
      w->epoch = identify->epoch;
    } else if (const auto* fetch = std::get_if<act::Fetch>(&action)) {
      fetch_parameters(w, fetch->blob);
    } else if (const auto* forget = std::get_if<act::Forget>(&action)) {
      w->fetched.erase(forget->digest);
    } else if (const auto* withdraw = std::get_if<act::Withdraw>(&action)) {
      w->offered.erase(withdraw->digest);
    } else if (const auto* adopt = std::get_if<act::Adopt>(&action)) {
      auto theta = w->fetched.find(adopt->head.parameters.digest);
      if (theta == w->fetched.end()) return invariants_.fail("a worker adopts what it did not fetch");
      ToySlot& slot = w->slots[adopt->slot];
      Coordinates& replica = slot.replica[adopt->head.fragment.value];
      const Coordinates before = std::exchange(replica, theta->second);
      slot.start[adopt->head.fragment.value] = theta->second;
      if (scenario_.method == Method::sparta && !before.empty()) {  // keeps its own of what is not drawn
        const std::size_t kept = adopt->head.version.value % 2 == 0 ? slot.coordinate : replica.size() - 1;
        replica[kept] = before[kept];
      }
      slot.coordinate = settings_.owned(adopt->slot, adopt->head.version).at("w").front().begin;
      invariants_.adopted(adopt->head, theta->second);
    } else if (const auto* release = std::get_if<act::Release>(&action)) {
      w->slots.erase(release->slot);
    } else if (const auto* exit = std::get_if<act::Exit>(&action)) {
      return exited(w, *exit);
    }
  }
  const std::size_t aims = scenario_.method == Method::async ? static_cast<std::size_t>(slots_) : 0;
  if (w->fetched.size() > 2 * fragments() + 2 + aims ||
      w->offered.size() > 2 * std::size_t(slots_) * fragments()) {
    invariants_.fail("I7: a worker keeps more blobs than it needs");
  }
}

void World::exited(const Worker& w, const act::Exit& exit) {
  w->alive = false;
  if (exit.code == ExitCode::done) return;
  if (exit.code != ExitCode::resumable) {
    return invariants_.fail(
        detail::describe("I9: a worker ended with ", static_cast<int>(exit.code), ": ", exit.reason));
  }
  if (done_) return;  // it waited in vain for a coordinator that has finished
  later(between(5, 300), [this, index = w->index] { start_worker(index); });
}

void World::crash(const Worker& w) {
  outcome_.worker_crashes += 1;
  w->alive = false;
  const bool stays_away = faults_.away > 0 && chance(faults_.away);
  later(stays_away ? between(500, 4000) : between(5, 300), [this, index = w->index] { start_worker(index); });
  if (scenario_.faults && !faults_.notices) return;
  later(between(1, 50), [this, dead = w->incarnation] { feed(coordinator_, event::WorkerDied{dead}); });
}

void World::to_coordinator(const WorkerProcess& from, const Message& message) {
  if (!link_up_[from.index] || chance(faults_.loss)) return;
  const Header header{from.job, from.epoch, from.incarnation, 0};
  event::Arrived arrived{from.incarnation, header, message};
  if (const auto* offer = std::get_if<Offer>(&message); offer && chance(faults_.alien)) {
    // What nobody of this run sends: of another job, epoch, worker or attempt. It goes beside the real one.
    event::Arrived alien = arrived;
    Offer& other = std::get<Offer>(alien.message);
    switch (random_.below(4)) {
      case 0:
        alien.header.job.low ^= 1;
        break;
      case 1:
        alien.header.epoch.value -= alien.header.epoch.value > 1;
        break;
      case 2:
        for (const Worker& w : worker_) {
          if (w && w->incarnation != from.incarnation) alien.peer = alien.header.incarnation = w->incarnation;
        }
        break;
      default:
        other.key.attempt.value -= 1;
    }
    later(delay(), [this, alien] {
      if (coordinator_->alive) feed(coordinator_, alien);
    });
  }
  const int copies = chance(faults_.duplicate) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    later(delay(), [this, arrived, index = from.index] {
      if (link_up_[index]) feed(coordinator_, arrived);
    });
  }
}

void World::fetch_parameters(const Worker& w, const BlobRef& blob) {
  later(delay() + between(1, 20), [this, w, digest = blob.digest] {
    ev::FetchDone done{digest, false, "the coordinator does not have it"};
    if (coordinator_->alive && !coordinator_->frozen && link_down_[w->index]) {
      for (const auto& [key, theta] : coordinator_->offered) {
        if (digest_of(theta) != digest) continue;
        w->fetched[digest] = theta;
        done.ok = true;
      }
    }
    feed(w, done);
  });
}

void World::schedule_tick(const Worker& w) {
  const Instant at = w->machine.wake_at();
  if (at == Instant::max() || (w->tick_at <= at && w->tick_at > now_)) return;
  w->tick_at = at;
  later(std::max(at - now_, Duration{}), [this, w, at] {
    if (w->tick_at != at || !w->alive) return;
    w->tick_at = Instant::max();
    if (now_ >= w->machine.wake_at()) {
      feed(w, ev::Tick{});
    } else {
      schedule_tick(w);
    }
  });
}

// ---- work ----

void World::do_work(const Worker& w, const WorkerAction& action) {
  double milliseconds = 2;
  if (const auto* run = std::get_if<act::Run>(&action)) milliseconds = 10.0 * static_cast<double>(run->steps);
  later(between(milliseconds, 3 * milliseconds), [this, w, action] {
    if (!w->alive || !invariants_.failure().empty()) return;
    feed(w, finish_work(*w, action));
  });
}

WorkerEvent World::finish_work(WorkerProcess& w, const WorkerAction& action) {
  if (std::holds_alternative<act::Configure>(action))
    return ev::Configured{make_plan(), Ready{{3, 4}, "toy"}};
  if (const auto* restore = std::get_if<act::Restore>(&action)) {
    ToySlot& slot = w.slots[restore->slot] = ToySlot{};
    slot.replica.resize(fragments());
    slot.start.resize(fragments());
    if (restore->state.is_zero()) return ev::Restored{restore->slot, restore->attempt, std::nullopt};
    if (chance(faults_.lost_state)) disk_.slot_states.erase(restore->state);
    auto found = disk_.slot_states.find(restore->state);
    if (found == disk_.slot_states.end())
      return ev::RestoreFailed{restore->slot, restore->attempt, "not here"};
    slot = found->second;
    return ev::Restored{restore->slot, restore->attempt, slot.progress};
  }
  if (const auto* run = std::get_if<act::Run>(&action)) {
    const std::int64_t steps = 1 + static_cast<std::int64_t>(random_.below(run->steps));
    auto found = w.slots.find(run->slot);
    if (found == w.slots.end()) invariants_.fail("a slot was released under its work");
    if (found != w.slots.end() &&
        found->second.moment == 0) {  // fresh: the data position follows the schedule
      found->second.sample = found->second.pushed_sample = run->first;
    }
    for (std::int64_t i = 0; i < steps && found != w.slots.end(); ++i) {
      found->second.progress.step = run->first + i;
      train_step(found->second, run->slot);
    }
    return ev::Ran{run->slot, run->attempt, steps};
  }
  if (const auto* contribute_action = std::get_if<act::Contribute>(&action))
    return contribute(w, *contribute_action);
  const auto& evaluate = std::get<act::Evaluate>(action);
  for (const FragmentHead& head : evaluate.heads) {
    if (!w.fetched.contains(head.parameters.digest))
      invariants_.fail("parameters were forgotten under their evaluation");
  }
  if (random_.chance(0.3)) return ev::EvaluationDone{};  // a slice of it
  return ev::EvaluationDone{Evaluated{evaluate.version, 1.0, 1.0, 0, 0}};
}

WorkerEvent World::contribute(WorkerProcess& w, const act::Contribute& action) {
  ev::Contributed done{action.slot, action.attempt, {}, {}, std::nullopt, {}};
  auto found = w.slots.find(action.slot);
  if (found == w.slots.end()) {
    invariants_.fail("a slot was released under its work");
    return done;
  }
  ToySlot& slot = found->second;
  slot.progress = action.progress;
  done.work.steps = slot.sample - slot.pushed_sample;
  done.work.compute_seconds = static_cast<double>(done.work.steps) * (1 + action.slot.value % 3);
  done.work.first_sample = slot.pushed_sample;
  done.work.end_sample = slot.sample;
  slot.pushed_sample = slot.sample;
  for (const KnownVersion& part : action.fragments) {
    ToyContribution contribution = contribution_of(slot, action.slot, part.fragment);
    if (chance(faults_.not_finite) && was_not_finite_.insert(action.slot).second) contribution.finite = false;
    w.offered[contribution.digest()] = contribution;
    invariants_.made(contribution);
    done.parts.push_back({part.fragment, BlobRef{contribution.digest(), 24, ""}});
  }
  done.slot_state = slot.digest();
  disk_.slot_states[done.slot_state] = slot;
  return done;
}

}  // namespace tessera::sim
