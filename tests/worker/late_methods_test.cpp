// Methods whose slots keep clocks of their own, in whole runs: the log, replayed, gives every state that was
// committed; a change is counted from the version that it names, whoever died; and they train.
#include <gmock/gmock.h>

#include "comm/storage/record_log.h"
#include "coordinator/record_codec.h"
#include "tests/worker/method_rig.h"

namespace tessera::testing {
namespace {

const std::vector<ParamSpec> some_specs{
    {"layers.0.w", {4}}, {"layers.1.w", {4, 2}}, {"layers.2.w", {2, 2}}, {"embed", {3}}};

/// Of layer 0 and 1, even slots own the first rows and odd ones the others.
MethodRun cut(MethodRun run) {
  run.specs = some_specs;
  run.inner = "adamw";
  run.inner_settings = {{"lr", 0.1}};
  run.cut = {"layers.0.w", "layers.1.w"};
  run.owned = [](SlotId slot) {
    const Rows half = slot.value % 2 == 0 ? Rows{0, 2} : Rows{2, 4};
    return RowSet{
        {"layers.0.w", {half}}, {"layers.1.w", {half}}, {"layers.2.w", {{0, 2}}}, {"embed", {{0, 3}}}};
  };
  return run;
}

MethodRun async(std::int64_t rounds = 20) {
  MethodRun run{.method = "async",
                .settings = {{"activation", 0.1}, {"staleness", "poly"}},
                .context = {.steps = 3, .lr = 0.5, .momentum = 0.5, .slices = 2}};
  run.slots = 4;
  run.rounds = rounds;
  return run;
}

MethodRun dynamic_async() {
  MethodRun run = async();
  run.settings["dynamic_steps"] = true;
  return run;
}

MethodRun decoupled(Mode mode = Mode::drop) {
  MethodRun run{.method = "decoupled",
                .settings = {{"fragments", 2}, {"tau", 1}},
                .context = {.steps = 6, .lr = 0.5, .momentum = 0.5, .slices = 2}};
  run.slots = 4;
  run.rounds = 6;
  run.mode = mode;
  run.quorum = mode == Mode::drop ? 1 : 0;
  return run;
}

struct Case {
  std::string name;
  MethodRun run;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.name;
}

std::vector<Record> records_of(const MethodRig& rig) {
  std::vector<Record> records;
  const auto log = replay_log(rig.folder() / "log");
  EXPECT_TRUE(log.ok());
  for (const LogRecord& record : log->records) records.push_back(*decode_record(record.type, record.payload));
  return records;
}

/// A slot's values of the model's parameters, in the order of their names.
std::vector<float> flat(const TensorMap& theta) {
  std::vector<float> values;
  for (const auto& [name, tensor] : theta) {
    const auto part = tensor.as<float>();
    values.insert(values.end(), part.begin(), part.end());
  }
  return values;
}

/// What a replay found on the way.
struct Found {
  int commits = 0, late = 0, counted_from_the_right_version = 0, partial = 0;
};

/// Makes every version again from the log and what was offered, with a merger of its own, and compares.
Found replay(const MethodRun& run, const MethodRig& rig) {
  Found found;
  const OuterMethod& method = rig.method();
  const auto fragments = method.fragments();
  std::shared_ptr<const OuterMethod> shared(&method, [](const OuterMethod*) {});
  const Merger merger(run.specs, shared, {.cut = run.cut});
  TensorMap theta;
  for (const ParamSpec& spec : run.specs) {
    HostTensor ones = HostTensor::zeros(DType::f32, spec.shape);
    std::ranges::fill(ones.as<float>(), 1.0f);
    theta.emplace(spec.name, std::move(ones));
  }
  TensorMap state = merger.initial_state(theta);
  std::map<std::int32_t, std::vector<TensorMap>> history;  // of a fragment, by version
  for (std::size_t f = 0; f < fragments.size(); ++f) {
    TensorMap first;
    for (const std::string& name : fragments[f]) first.emplace(name, theta.at(name).clone());
    history[static_cast<std::int32_t>(f)].push_back(std::move(first));
  }
  std::map<std::int32_t, SealedRecord> sealed;
  for (const Record& record : records_of(rig)) {
    if (const auto* seal = std::get_if<SealedRecord>(&record)) {
      sealed[seal->fragment.value] = *seal;
      continue;
    }
    const auto* commit = std::get_if<CommitRecord>(&record);
    if (commit == nullptr) continue;
    const SealedRecord& of = sealed.at(commit->fragment.value);
    std::vector<MergeInput> inputs;
    for (const StagedRecord& c : of.contributions) {
      const std::int64_t staleness = of.version.value - c.key.version.value;
      found.late += staleness > 0;
      TensorMap pieces = decode_safetensors(rig.offered.at(c.digest).buffer, "contribution")->tensors;
      // The change is from the version that the key names to what the slot had after its last step.
      const TensorMap& start = history[commit->fragment.value][static_cast<std::size_t>(c.key.version.value)];
      const auto& steps = rig.seen->at(c.key.slot);
      const auto after = steps.find(static_cast<std::int64_t>(c.work.end_sample));
      const bool adopts = !method.due(static_cast<std::int64_t>(c.work.end_sample)).adopt.empty();
      // Where rounds have different lengths, an attempt that is lost may have gone further.
      if (after != steps.end() && !adopts && !method.dynamic_steps()) {
        std::size_t offset = 0;
        std::map<std::string, std::size_t> offsets;
        for (const auto& [name, tensor] : theta) {
          offsets[name] = offset;
          offset += static_cast<std::size_t>(tensor.elements());
        }
        for (const auto& [name, tensor] : pieces) {
          const std::string param = name.substr(0, name.find('['));
          const PieceRows piece = rows_of_piece(name, start.at(param).shape[0]);
          const auto from = start.at(param).rows(piece.rows);
          const std::size_t width = from.as<float>().size() / static_cast<std::size_t>(piece.rows.count());
          for (std::size_t i = 0; i < from.as<float>().size(); ++i) {
            const float end =
                after->second[offsets[param] + static_cast<std::size_t>(piece.rows.begin) * width + i];
            EXPECT_EQ(tensor.as<float>()[i],
                      static_cast<float>(static_cast<double>(from.as<float>()[i]) - static_cast<double>(end)))
                << name << " of slot " << c.key.slot << " from version " << c.key.version;
          }
        }
        ++found.counted_from_the_right_version;
      }
      // Where a slot adopts everything at once, it began with that version.
      const auto before = steps.find(static_cast<std::int64_t>(c.work.first_sample));
      if (fragments.size() == 1 && before != steps.end()) {
        EXPECT_EQ(before->second, flat(start)) << "slot " << c.key.slot << " from " << c.key.version;
        ++found.counted_from_the_right_version;
      }
      inputs.push_back({c.key.slot,
                        std::move(pieces),
                        {.staleness = staleness,
                         .steps = static_cast<std::int64_t>(c.work.steps),
                         .units = c.work.units}});
    }
    merger.merge(commit->fragment, commit->version, inputs, theta, state);
    TensorMap made, parameters;
    for (const std::string& name : fragments[static_cast<std::size_t>(commit->fragment.value)]) {
      made.emplace(name, theta.at(name));
      parameters.emplace(name, theta.at(name).clone());
      for (const auto& [key, tensor] : state) {
        if (key.substr(key.find('/') + 1) == name) made.emplace(key, tensor);
      }
    }
    history[commit->fragment.value].push_back(std::move(parameters));
    EXPECT_EQ(state_digest(made), commit->state) << "fragment " << commit->fragment << " " << commit->version;
    ++found.commits;
    found.partial += !commit->left_out.empty();
  }
  return found;
}

class Late : public ::testing::TestWithParam<Case> {};

TEST_P(Late, TheLogReplayedGivesEveryStateWhoeverDied) {
  MethodRun run = GetParam().run;
  run.workers = 2;
  Found sum;
  int died = 0;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    KeyedRandom random(seed);
    MethodRig rig(run);
    ASSERT_TRUE(rig.finish_while_all_die(random, seed == 0 ? 0 : 4));
    died += rig.died;
    const Found found = replay(run, rig);
    EXPECT_EQ(found.commits, run.rounds * static_cast<std::int64_t>(rig.method().fragments().size()));
    sum.late += found.late;
    sum.partial += found.partial;
    sum.counted_from_the_right_version += found.counted_from_the_right_version;
  }
  std::cout << died << " died, " << sum.late << " late contributions, " << sum.partial << " partial merges, "
            << sum.counted_from_the_right_version << " changes followed back\n";
  EXPECT_GT(died, 20);
  EXPECT_GT(sum.late, run.mode == Mode::drop || run.method == "async" ? 10 : -1);
  EXPECT_GT(sum.counted_from_the_right_version, 50);
}

INSTANTIATE_TEST_SUITE_P(Runs, Late,
                         ::testing::Values(Case{"async", cut(async())},
                                           Case{"async_with_dynamic_steps", cut(dynamic_async())},
                                           Case{"decoupled", cut(decoupled())}),
                         [](const auto& info) { return info.param.name; });

/// Waiting for everybody, decoupled is as exact as streaming.
TEST(Decoupled, InModeExactNeitherWorkersNorDeathsChangeABit) {
  MethodRun run = cut(decoupled(Mode::exact));
  std::vector<std::string> undisturbed;
  {
    MethodRig rig(run);
    ASSERT_TRUE(rig.finish());
    undisturbed = rig.story();
  }
  run.workers = 2;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    KeyedRandom random(seed);
    MethodRig rig(run);
    ASSERT_TRUE(rig.finish_while_all_die(random, 3));
    EXPECT_EQ(rig.story(), undisturbed) << "seed " << seed;
  }
}

TEST(Decoupled, OfEqualWeightsAndPlainMeansIsStreaming) {
  MethodRun run = cut(decoupled(Mode::exact));
  run.settings["merge"] = "mean";
  run.settings["weights"] = "equal";
  MethodRun plain = run;
  plain.method = "streaming";
  plain.settings = {{"fragments", 2}, {"tau", 1}, {"pattern", "balanced"}};
  MethodRig a(run), b(plain);
  ASSERT_TRUE(a.finish() && b.finish());
  const auto fragments = a.method().fragments();
  for (std::int32_t fragment : {0, 1}) {
    for (const std::string& name : fragments[static_cast<std::size_t>(fragment)]) {
      const std::vector<float> one = a.committed(fragment, 6, name), other = b.committed(fragment, 6, name);
      for (std::size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], other[i], 1e-5f) << name;
    }
  }
}

/// Equal speeds: after as many steps of every slot it is about as far as diloco, on the same data.
TEST(Async, TrainsAsFarAsDiLoCoWhereSpeedsAreEqual) {
  const auto last_loss = [](MethodRun run, std::size_t rows_of_a_round) {
    run.specs = {{"layers.0.w", {4}}, {"layers.1.w", {3}}};
    run.slots = 4;
    run.context.steps = 4;
    run.context.lr = 0.7;
    run.context.momentum = 0.9;
    run.inner_settings = {{"lr", 0.02}, {"weight_decay", 0.0}};
    MethodRig rig(run);
    EXPECT_TRUE(rig.finish());
    const std::vector<Json> rows = rig.rows();
    double first = 0, last = 0;
    for (std::size_t i = 0; i < rows_of_a_round; ++i) {
      first += rows[i]["loss"].get<double>() / static_cast<double>(rows_of_a_round);
      last += rows[rows.size() - 1 - i]["loss"].get<double>() / static_cast<double>(rows_of_a_round);
    }
    EXPECT_LT(last, first);
    return last;
  };
  const double diloco = last_loss({.method = "diloco", .rounds = 40}, 8);
  const double late = last_loss({.method = "async", .rounds = 160}, 32);
  std::cout << "diloco " << diloco << ", async " << late << "\n";
  EXPECT_LT(late, 1.1 * diloco);
}

TEST(Async, BringsEncodedChanges) {
  MethodRun run = cut(async());
  run.up = {Registry<Codec>::builtin().make("bf16", {}), 0};
  MethodRig rig(run);
  ASSERT_TRUE(rig.finish());
  MethodRun exact = run;
  exact.up = {};
  MethodRig plain(exact);
  ASSERT_TRUE(plain.finish());
  const std::vector<float> one = rig.committed(0, 20, "embed"), other = plain.committed(0, 20, "embed");
  EXPECT_NE(one, other);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], other[i], 0.02f);
}

}  // namespace
}  // namespace tessera::testing
