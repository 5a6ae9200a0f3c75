// Whole runs of a method on one thread: the real coordinator and real workers over in-process endpoints, with
// a model of a few numbers. What every slot computes with is on record, step by step, and anybody may die.
#pragma once
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/set_numbers.h"
#include "comm/transport/inproc_endpoint.h"
#include "coordinator/coordinator.h"
#include "tests/comm/scratch_folder.h"
#include "tests/worker/step_fixture.h"
#include "worker/worker.h"

namespace tessera::testing {

/// values[slot][step]: all parameters in the order of their names, as they are before the step.
using Seen = std::map<SlotId, std::map<std::int64_t, std::vector<float>>>;

/// Loss: slope x sum of all parameters, or half their squared distance from a target that differs by slot and
/// sample.
class FewNumbers final : public Family {
 public:
  FewNumbers(std::vector<ParamSpec> specs, double slope, std::shared_ptr<Seen> seen)
      : specs_(std::move(specs)), slope_(slope), seen_(std::move(seen)) {}
  std::vector<ParamSpec> specs() const override { return specs_; }
  std::vector<CutGroup> cuts() const override { return {}; }
  CostModel cost() const override { return {}; }
  void initialize(ParamStore& params, std::uint64_t) const override {
    for (auto& [name, parameter] : params.all()) parameter.full.fill_(1);
  }
  NamedTensors example_batch(std::uint64_t) const override { return {}; }
  NamedTensors forward(const ParamStore& params, const NamedTensors& batch) const override {
    const auto position = batch.at("position").contiguous();
    const float* const where = position.const_data_ptr<float>();  // slot, sample, target
    std::vector<float>& values =
        (*seen_)[{static_cast<std::int32_t>(where[0])}][static_cast<std::int64_t>(where[1])];
    values.clear();
    at::Tensor loss = at::zeros({});
    for (const auto& [name, parameter] : params.all()) {
      const at::Tensor p = parameter.differentiable();
      const at::Tensor shown = p.detach().contiguous();
      values.insert(values.end(), shown.const_data_ptr<float>(),
                    shown.const_data_ptr<float>() + shown.numel());
      if (p.requires_grad())
        loss = loss + (slope_ != 0 ? p.mul(slope_) : p.sub(where[2]).square().mul(0.5)).sum();
    }
    return {{"loss", loss}};
  }

 private:
  std::vector<ParamSpec> specs_;
  double slope_;
  std::shared_ptr<Seen> seen_;
};

struct TheLoss final : Objective {
  Value operator()(const NamedTensors& outputs, const NamedTensors&) const override {
    return {outputs.at("loss"), 1, {}};
  }
  MemoryStage memory(double, double) const override { return {}; }
};

struct Positions final : DataSource {
  bool same_for_all = false;  ///< every slot sees the same data
  Status open() override { return {}; }
  std::string unit() const override { return "samples"; }
  std::int64_t vocab() const override { return 0; }
  std::uint64_t samples() const override { return 1000; }
  Digest digest() const override { return {}; }
  Batch train(SlotId slot, std::uint64_t first, std::uint64_t count) const override {
    KeyedRandom random(key_of({same_for_all ? 0 : std::uint64_t(slot.value), first}));
    Batch batch;
    batch.tensors.emplace("position",
                          HostTensor::of<float>(DType::f32, {3},
                                                {static_cast<float>(slot.value), static_cast<float>(first),
                                                 static_cast<float>(random.normal())}));
    batch.units = static_cast<double>(count);
    return batch;
  }
  std::optional<Batch> held_out(std::uint64_t, std::uint64_t) const override { return std::nullopt; }
};

struct MethodRun {
  std::string method = "diloco";
  Json settings = Json::object();
  OuterMethod::Context context{};  ///< specs and slots are filled in
  std::vector<ParamSpec> specs{{"layers.0.w", {1}}, {"layers.1.w", {1}}};
  std::int32_t slots = 2, workers = 1;
  std::int64_t rounds = 3;
  double slope = 0;
  std::string inner = "sgd";
  Json inner_settings{{"lr", 0.25}, {"weight_decay", 0.0}};
  bool same_data = false;
  Mode mode = Mode::exact;
  std::function<RowSet(SlotId)> owned;  ///< default: everything
  std::set<std::string> cut;
  bool keeps_fast = false, fast_for_all = false;
  std::vector<std::string> moments;  ///< of the inner optimizer
  Wire up{}, down{};
  std::int32_t quorum = 0;

  RowSet everything() const {
    RowSet all;
    for (const ParamSpec& spec : specs) add_rows(all, spec.name, {0, spec.rows()});
    return all;
  }
};

class MethodRig {
 public:
  explicit MethodRig(MethodRun run) : run_(std::move(run)) {
    prepare_numerics(1);
    run_.context.specs = run_.specs;
    run_.context.slots = run_.slots;
    if (!run_.owned) run_.owned = [all = run_.everything()](SlotId) { return all; };
    method_ = make_plugin<OuterMethod>(run_.method, run_.settings, run_.context);
    EXPECT_EQ(method_->problems(), std::vector<std::string>{});
    open();
    for (std::int32_t w = 0; w < run_.workers; ++w) add_worker();
  }

  void open() {
    coordinator.reset();
    endpoint_.reset();
    endpoint_ = hub_.make_coordinator();
    CoordinatorParts parts;
    parts.settings.build = "rig";
    parts.settings.rounds = Version{run_.rounds};
    parts.settings.evaluate = false;
    parts.settings.checkpoint_every = 2;
    parts.settings.mode = run_.mode;
    parts.settings.arrivals_per_merge = method_->arrivals_per_merge();
    parts.settings.takes_late = method_->takes_late();
    parts.settings.window = method_->grace();
    parts.settings.dynamic = method_->dynamic_steps();
    parts.settings.quorum = run_.quorum;
    parts.settings.expected_workers = run_.workers;
    parts.settings.slot_count = run_.slots;
    parts.settings.fast_for_all = run_.fast_for_all;
    parts.settings.owned = [owned = run_.owned](SlotId slot, Version) { return owned(slot); };
    parts.store.run = folder_.path();
    parts.specs = run_.specs;
    parts.method = method_;
    parts.up = up();
    parts.down = run_.down;
    parts.merge = {.cut = run_.cut, .keeps_fast = run_.keeps_fast, .brings_changes = parts.up.rounds()};
    parts.hand_over = moments();
    for (const ParamSpec& spec : run_.specs) {
      HostTensor ones = HostTensor::zeros(DType::f32, spec.shape);
      std::ranges::fill(ones.as<float>(), 1.0f);
      parts.initial.emplace(spec.name, std::move(ones));
    }
    parts.slots_folder = slots_folder();
    auto opened = Coordinator::open(std::move(parts), *endpoint_, clock_, metrics_);
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    coordinator = std::move(*opened);
    coordinator->start();
  }

  void add_worker() {
    Member& member = members_.emplace_back();
    member.endpoint = std::make_unique<Watched>(hub_.make_worker(), offered);
    member.worker =
        std::make_unique<Worker>(WorkerIdentity{.build = "rig", .host = "here", .capacity = run_.slots},
                                 Incarnation{1, ++made_}, *member.endpoint, clock_);
    member.worker->set_configure([this](const std::string&) { return parts(); });
    member.worker->set_slot_store(SlotStore(slots_folder()));
    member.worker->start();
  }

  /// All that workers ever offered.
  std::map<Digest, Blob> offered;

  void pump() {
    clock_.advance(std::chrono::milliseconds(5));
    coordinator->pump(clock_.now());
    for (Member& member : members_) member.worker->pump(clock_.now());
    std::erase_if(members_, [](const Member& member) { return member.worker->ended().has_value(); });
  }
  bool finish() {
    for (int i = 0; i < 40000 && !coordinator->done(); ++i) pump();
    return coordinator->done() && coordinator->finish().code == ExitCode::done;
  }
  /// The same while workers and the coordinator end without a word, so often each.
  bool finish_while_all_die(KeyedRandom& random, int deaths) {
    for (int left = 2 * deaths; left > 0 && !coordinator->done();) {
      pump();
      if (!random.chance(0.05) || coordinator->done()) continue;
      --left;
      ++died;
      if (left % 2 == 0) {
        open();
      } else if (!members_.empty()) {
        members_.erase(members_.begin());
        add_worker();
      }
    }
    return finish();
  }
  /// fragment, version and state hash of all rows, in order.
  std::vector<std::string> story() const {
    std::vector<std::string> story;
    for (const Json& row : rows())
      story.push_back(std::to_string(row.value("fragment", 0)) + " " + row["round"].dump() + " " +
                      row["state_hash"].get<std::string>());
    return story;
  }
  std::vector<Json> rows() const {
    std::vector<Json> rows;
    std::ifstream file(folder_.path() / "metrics.jsonl");
    for (std::string line; std::getline(file, line);) rows.push_back(Json::parse(line));
    return rows;
  }
  /// A committed tensor, parameter or outer state.
  std::vector<float> committed(std::int32_t fragment, std::int64_t version, const std::string& name) const {
    char file[64];
    std::snprintf(file, sizeof file, "log/state-%d-%08lld.safetensors", fragment,
                  static_cast<long long>(version));
    const std::string text = read_text((folder_.path() / file).string());
    const auto decoded = decode_safetensors(Buffer::copy_of(std::as_bytes(std::span(text))), file);
    const auto values = decoded->tensors.at(name).as<float>();
    return {values.begin(), values.end()};
  }
  /// The coordinator comes back and finds no committed state: it has to begin at its newest checkpoint.
  void lose_committed_states() {
    coordinator.reset();
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path() / "log")) {
      if (entry.path().filename().string().starts_with("state-")) std::filesystem::remove(entry.path());
    }
    open();
  }
  const OuterMethod& method() const { return *method_; }
  const Path& folder() const { return folder_.path(); }

  std::unique_ptr<Coordinator> coordinator;
  std::shared_ptr<Seen> seen = std::make_shared<Seen>();
  int died = 0;

 private:
  /// An endpoint that keeps what is offered.
  class Watched final : public Endpoint {
   public:
    Watched(std::unique_ptr<Endpoint> inner, std::map<Digest, Blob>& kept)
        : inner_(std::move(inner)), kept_(kept) {}
    void identify(JobId job, Epoch epoch, Incarnation incarnation) override {
      inner_->identify(job, epoch, incarnation);
    }
    void send(PeerId to, const Message& message) override { inner_->send(to, message); }
    std::optional<Arrival> receive(Instant deadline) override { return inner_->receive(deadline); }
    BlobRef offer(const Blob& blob) override {
      kept_.insert_or_assign(blob.digest, blob);
      return inner_->offer(blob);
    }
    void withdraw(const Digest& digest) override { inner_->withdraw(digest); }
    void fetch(PeerId from, const BlobRef& ref) override { inner_->fetch(from, ref); }
    TransportCounters counters() const override { return inner_->counters(); }

   private:
    std::unique_ptr<Endpoint> inner_;
    std::map<Digest, Blob>& kept_;
  };

  struct Member {
    std::unique_ptr<Endpoint> endpoint;
    std::unique_ptr<Worker> worker;
  };

  /// As launch/assemble.cpp puts them together from a recipe.
  Wire up() const {
    const std::optional<Encoding> own = method_->encoding();
    if (!own) return run_.up;
    const auto settings = Registry<Codec>::builtin().make_settings(own->codec);
    set_numbers(*settings, own->settings);
    return {Registry<Codec>::builtin().make(own->codec, *settings, {}), own->feedback};
  }
  HandOver moments() const {
    HandOver averaged;
    for (const std::string& moment : run_.moments) {
      if (method_->merges_per_moment(moment) > 0) averaged.moments.push_back(moment);
    }
    for (const ParamSpec& spec : run_.specs) averaged.params.push_back(spec.name);
    averaged.is_due = [method = method_](const std::string& moment, Version version) {
      return version.value % method->merges_per_moment(moment) == 0;
    };
    averaged.rows = [is_due = averaged.is_due, owned = run_.owned](const std::string& moment, SlotId slot,
                                                                   Version version) {
      return is_due(moment, {version.value + 1}) ? owned(slot) : RowSet();
    };
    return averaged;
  }

  std::string slots_folder() const { return (folder_.path() / "slots").string(); }
  Result<std::unique_ptr<WorkerParts>> parts() const {
    auto parts = std::make_unique<WorkerParts>();
    parts->family = std::make_unique<FewNumbers>(run_.specs, run_.slope, seen);
    parts->objective = std::make_unique<TheLoss>();
    parts->schedule = std::make_unique<ConstantRate>();
    auto data = std::make_unique<Positions>();
    data->same_for_all = run_.same_data;
    parts->data = std::move(data);
    parts->method = method_;
    parts->make_inner = [this] { return make_plugin<InnerOptimizer>(run_.inner, run_.inner_settings); };
    parts->slots = run_.slots;
    parts->owned = [owned = run_.owned](SlotId slot, Version) { return owned(slot); };
    parts->trainer = {.seed = 5, .batch = 1, .clip = {.mode = ClipSettings::Mode::off}};
    parts->cut = {.params = run_.cut, .keeps_fast = run_.keeps_fast};
    parts->fast_for_all = run_.fast_for_all;
    parts->up = up();
    parts->down = run_.down;
    parts->moments = moments().moments;
    parts->brings_moments = moments().rows;
    parts->rounds = Version{run_.rounds};
    return parts;
  }

  MethodRun run_;
  ScratchFolder folder_;
  std::shared_ptr<const OuterMethod> method_;
  InprocHub hub_;
  ManualClock clock_;
  Metrics metrics_;
  std::unique_ptr<Endpoint> endpoint_;
  std::vector<Member> members_;
  std::uint64_t made_ = 0;
};

/// Neither the number of workers nor the death of any, or of the coordinator, changes a bit of the run.
inline void expect_the_same_whoever_dies(MethodRun run) {
  run.rounds = run.context.steps == 1 ? 15 : 5;  // long enough to die in
  std::vector<std::string> undisturbed;
  {
    MethodRig rig(run);
    ASSERT_TRUE(rig.finish());
    undisturbed = rig.story();
    ASSERT_EQ(undisturbed.size(), static_cast<std::size_t>(run.rounds) * rig.method().fragments().size());
  }
  run.workers = 2;
  int died = 0;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    MethodRig rig(run);
    ASSERT_TRUE(rig.finish_while_all_die(random, seed == 0 ? 0 : 3));
    ASSERT_EQ(rig.story(), undisturbed);
    died += rig.died;
  }
  EXPECT_GT(died, 15);
}

}  // namespace tessera::testing
