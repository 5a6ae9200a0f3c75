#include "tests/sim/world.h"

namespace tessera::sim {

const char* name_of(Method method) {
  switch (method) {
    case Method::diloco:
      return "diloco";
    case Method::rotating:
      return "rotating";
    case Method::streaming:
      return "streaming";
    case Method::async:
      return "async";
    case Method::drop:
      return "drop";
    case Method::streaming_drop:
      return "streaming_drop";
    case Method::eager:
      return "eager";
    case Method::sparta:
      return "sparta";
    case Method::decoupled:
      return "decoupled";
  }
  return "?";
}

std::string describe(const Scenario& scenario) {
  return std::string("replay: TESSERA_SIM=") + name_of(scenario.method) + ":" +
         std::to_string(scenario.seed) + " sim_tests --gtest_filter=Simulator.ReplaysOneSeed";
}

Outcome run(const Scenario& scenario, Coverage* coverage) {
  return World(scenario, coverage).run();
}

World::World(const Scenario& scenario, Coverage* coverage)
    : scenario_(scenario),
      coverage_(coverage),
      random_(key_of({scenario.seed, static_cast<std::uint64_t>(scenario.method)})),
      // What decides the bits of a run depends on the seed's last digits only, so that undisturbed runs can
      // be shared.
      slots_(2 + static_cast<std::int32_t>(scenario.seed % 3)),
      workers_(1 + static_cast<std::int32_t>(random_.below(slots_))),
      settings_(make_settings()),
      invariants_(settings_, static_cast<std::int32_t>(fragments())) {
  settings_.rules = scenario.rules;
  draw_faults();
  deadline_ = heal_at_ + std::chrono::seconds(60);
  link_up_.assign(workers_, true);
  link_down_.assign(workers_, true);
  worker_.resize(workers_);
  std::vector<Digest> chains;
  for (std::uint64_t f = 0; f < fragments(); ++f) {
    const FragmentId fragment{static_cast<std::int32_t>(f)};
    disk_.committed[fragment][Version{0}] = initial_fragment(fragment, slots_);
    chains.push_back(chain_digest({}, state_of(disk_.committed[fragment][Version{0}]), {}));
  }
  disk_.ledger = Ledger(slots_, chains);
}

CoordinatorSettings World::make_settings() const {
  CoordinatorSettings settings;
  settings.job = {77, scenario_.seed + 1};
  settings.build = "toy";
  settings.recipe = {1, 2};
  settings.recipe_text = "toy";
  settings.rounds = Version{scenario_.method == Method::async ? 3 * slots_ : 4};
  settings.mode = is_drop(scenario_.method) ? Mode::drop : Mode::exact;
  settings.arrivals_per_merge = scenario_.method == Method::async ? 1 : 0;
  if (scenario_.method == Method::async && scenario_.seed / 3 % 2 == 1) settings.dynamic = DynamicSteps{3, 1};
  settings.takes_late = scenario_.method == Method::async || scenario_.method == Method::decoupled;
  settings.eval_every = 2;
  settings.checkpoint_every = 2;
  settings.lease = std::chrono::milliseconds(400);
  settings.expected_workers = workers_;
  settings.slot_count = slots_;
  const bool rotates = scenario_.method == Method::rotating;
  settings.owned = [rotates, slots = slots_](SlotId slot, Version version) {
    const std::int64_t own = (slot.value + (rotates ? version.value : 0)) % slots;
    return RowSet{{"w", {Rows{own, own + 1}, Rows{slots, slots + 1}}}};
  };
  std::vector<Slice> slices;
  for (std::int32_t k = 0; k < slots_; ++k) {
    slices.push_back({detail::describe("own ", k), {{"w", {Rows{k, k + 1}}}}, {k}});
  }
  slices.push_back({"shared", {{"w", {Rows{slots_, slots_ + 1}}}}, {}});
  settings.slices = [slices](FragmentId, Version) { return slices; };
  if (is_drop(scenario_.method)) {
    settings.quorum =
        static_cast<std::int32_t>(scenario_.seed / 3 % (static_cast<std::uint64_t>(slots_) + 1));
    if (scenario_.seed % 2 == 1) settings.deadline = std::chrono::milliseconds(100);
  }
  if (scenario_.method == Method::decoupled) {
    // Of two fragments: no quorum that slots could miss by each waiting for another one (decoupled.cpp).
    const std::int32_t quorums[] = {1, slots_ > 2 ? 2 : 1, slots_};
    settings.quorum = quorums[scenario_.seed / 3 % 3];
    settings.deadline = Duration{};
    settings.window = GraceWindow{1.0, 0.2, 1};
  }
  return settings;
}

/// DiLoCo: push after every third step, adopt before the next. Streaming: two fragments, push after steps
/// 4, 8... and 2, 6..., adopt one step later. Eager: push after every third step, adopt before the same one.
/// Sparta: push after every step, adopt (a part) before the next.
WorkPlan World::make_plan() const {
  WorkPlan plan;
  plan.fragments = static_cast<std::int32_t>(fragments());
  plan.rounds = settings_.rounds;
  if (fragments() == 2) {
    plan.own_clocks = scenario_.method == Method::decoupled;
    plan.step_at = [](const std::vector<Version>& heads) {
      return std::max(heads[0].value > 0 ? 4 * heads[0].value + 1 : 0,
                      heads[1].value > 0 ? 4 * heads[1].value - 1 : 0);
    };
    plan.duties = [](std::int64_t step) {
      Duties duties;
      for (std::int32_t f = 0; f < 2; ++f) {
        const std::int64_t offset = 2 * f;
        if ((step + 1 - offset) % 4 == 0 && step + 1 - offset > -4 && step > 0)
          duties.push.push_back(FragmentId{f});
        if ((step - 1 - offset) % 4 == 0 && step > 1) duties.adopt.push_back(FragmentId{f});
      }
      return duties;
    };
  } else if (scenario_.method == Method::sparta) {
    plan.step_at = [](const std::vector<Version>& heads) { return heads[0].value; };
    plan.duties = [](std::int64_t step) {
      Duties duties;
      if (step > 0) duties.adopt.push_back(FragmentId{0});
      duties.push.push_back(FragmentId{0});
      return duties;
    };
  } else {
    plan.own_clocks = plan.fetch_when_due = scenario_.method == Method::async;
    plan.round_steps = settings_.dynamic ? settings_.dynamic->all : 0;
    plan.step_at = [each = scenario_.method == Method::async ? slots_ : 1](
                       const std::vector<Version>& heads) { return 3 * (heads[0].value / each); };
    plan.duties = [eager = scenario_.method == Method::eager](std::int64_t step) {
      Duties duties;
      if (eager ? step % 3 == 2 && step > 2 : step % 3 == 0) duties.adopt.push_back(FragmentId{0});
      if (step % 3 == 2) duties.push.push_back(FragmentId{0});
      return duties;
    };
  }
  return plan;
}

void World::draw_faults() {
  if (!scenario_.faults) return;
  heal_at_ = now_ + between(500, 4000);
  // A random subset of kinds per seed: rare combinations come up, and each kind is also seen almost alone.
  auto maybe = [&](double& fault, double up_to) {
    if (random_.chance(0.5)) fault = random_.uniform() * up_to;
  };
  maybe(faults_.loss, 0.3);
  maybe(faults_.duplicate, 0.5);
  maybe(faults_.slow, 0.3);
  maybe(faults_.worker_crash, 0.03);
  maybe(faults_.coordinator_crash, 0.05);
  maybe(faults_.freeze, 0.01);
  maybe(faults_.zombie, 1.0);
  maybe(faults_.not_finite, 0.3);
  maybe(faults_.alien, 0.1);
  maybe(faults_.rot, 0.3);
  maybe(faults_.cut, 1.0);
  if (is_drop(scenario_.method)) maybe(faults_.lost_state, 0.2);
  if (is_drop(scenario_.method)) maybe(faults_.away, 1.0);
  faults_.notices = random_.chance(0.5);
}

Outcome World::run() {
  start_coordinator();
  for (std::int32_t w = 0; w < workers_; ++w) {
    later(between(1, 50), [this, w] { start_worker(w); });
  }
  if (scenario_.faults && faults_.cut > 0) cut_links();
  while (!agenda_.empty() && !finished() && invariants_.failure().empty()) {
    const Scheduled next = agenda_.top();
    agenda_.pop();
    now_ = next.at;
    if (now_ > deadline_ || outcome_.events > 200000) {
      invariants_.fail(detail::describe("I6: no end within ", seconds(deadline_ - heal_at_),
                                        " s after all faults healed"));
      break;
    }
    outcome_.events += 1;
    next.what();
  }
  if (invariants_.failure().empty() && !finished())
    invariants_.fail("I6: nothing is left to happen, and the run has no end");
  if (invariants_.failure().empty()) {
    for (std::uint64_t f = 0; f < fragments(); ++f) {
      for (std::int64_t v = 1; v <= settings_.rounds.value; ++v) {
        const FragmentId fragment{static_cast<std::int32_t>(f)};
        auto row = disk_.rows.find({fragment, Version{v}});
        const bool due = f + 1 == fragments() && settings_.evaluation_due(Version{v});
        if (row == disk_.rows.end())
          invariants_.fail(detail::describe("version ", v, " has no row of metrics"));
        else if (row->second != due)
          invariants_.fail(detail::describe("the row of version ", v, " lacks its evaluation"));
      }
    }
  }
  outcome_.failure = invariants_.failure();
  outcome_.chains = invariants_.chains();
  outcome_.shortened = invariants_.shortened();
  outcome_.took = now_ - Instant{};
  return outcome_;
}

bool World::finished() const {
  if (!done_) return false;
  for (const Worker& worker : worker_) {
    if (worker && worker->alive) return false;
  }
  return true;
}

void World::later(Duration delay, std::function<void()> what) {
  agenda_.push({now_ + delay, ++scheduled_, std::move(what)});
}

Duration World::between(double low_ms, double high_ms) {
  return from_seconds((low_ms + random_.uniform() * (high_ms - low_ms)) / 1000);
}

/// Of one message: a few milliseconds, or so long that others overtake it.
Duration World::delay() {
  return chance(faults_.slow) ? between(10, 600) : between(0.1, 5);
}

/// One direction of one worker's link goes down for a while, again and again until everything heals.
void World::cut_links() {
  later(between(50, 800), [this] {
    if (!faulty()) return;
    const std::uint64_t w = random_.below(workers_);
    std::vector<bool>& links = random_.chance(0.5) ? link_up_ : link_down_;
    links[w] = false;
    later(between(50, 1500), [this, &links, w] { links[w] = true; });
    cut_links();
  });
}

bool World::crash_here(std::map<std::string, Coverage::Counts> Coverage::*who, const std::string& point,
                       bool by_chance) {
  const bool wanted = !crashed_there_ && !scenario_.crash_before.empty() && point == scenario_.crash_before;
  crashed_there_ |= wanted;
  const bool crash = by_chance || wanted;
  if (coverage_) {
    Coverage::Counts& counts = (coverage_->*who)[point];
    (crash ? counts.crashed : counts.reached) += 1;
    if (!crash && scenario_.crash_before.empty()) {
      counts.seed = scenario_.seed;
      counts.method = scenario_.method;
    }
  }
  return crash;
}

void World::trace(std::uint64_t what) {
  outcome_.fingerprint =
      mix64(outcome_.fingerprint ^ mix64(what ^ static_cast<std::uint64_t>(now_.time_since_epoch().count())));
}

}  // namespace tessera::sim
