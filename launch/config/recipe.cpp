#include "launch/config/recipe.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "base/error.h"
#include "base/text.h"
#include "coordinator/assign.h"
#include "optim/outer.h"

namespace tessera {

namespace {
constexpr const char* exact_codec = "fp32";  // the one that carries parameters, not changes

/// What does not go with methods whose slots keep clocks of their own; the methods know the rest.
void add_late_problems(const Recipe& recipe, std::vector<std::string>& found) {
  const std::string& method = recipe.outer.method.name;
  if (method != "async" && method != "decoupled") return;
  const auto refuse = [&](bool asked, const char* setting, const char* reason) {
    if (asked)
      found.push_back(detail::describe(setting, " does not go with outer.name = \"", method, "\": ", reason));
  };
  refuse(recipe.partial.average == "slots", "partial.average = \"slots\"",
         "merges have whoever came, not all slots");
  refuse(recipe.partial.blocks(), "partial.assign = \"block\"",
         "versions say whose turn a slice is, and here slots work on different ones");
  refuse(recipe.mode == "drop" && recipe.sync.deadline > 0, "sync.deadline",
         method == "async" ? "a merge is made of one contribution and waits for nobody"
                           : "outer.grace and outer.grace_cap say how long a merge waits");
}
}  // namespace

Choice::Choice(const SettingsCatalog* from, const std::string& preferred) : catalog(from) {
  TESSERA_CHECK(catalog != nullptr, ": no catalog to choose ", preferred, " from");
  const std::vector<std::string> names = catalog->names();
  TESSERA_CHECK(!names.empty(), ": there is no ", catalog->kind());
  name = std::count(names.begin(), names.end(), preferred) > 0 ? preferred : names.front();
  settings = catalog->make_settings(name);
}

void ModelSettings::fields(FieldVisitor& f) {
  family.visit(f, {"family", "what kind of model"});
  f.field({"vocab", "size of the vocabulary; sentencepiece learns so many pieces; 0: the tokenizer's own",
           at_least(0)},
          vocab);
}

void ObjectiveSettings::fields(FieldVisitor& f) {
  objective.visit(f, {"name", "what the model is trained to do well"});
}

void SyncSettings::fields(FieldVisitor& f) {
  f.field({"steps", "inner steps H that a slot takes between two merges", at_least(1)}, steps);
  f.field({"quorum", "mode drop: no merge closes with fewer contributions; 0: two thirds of the slots",
           at_least(0)},
          quorum);
  f.field(
      {"deadline",
       "mode drop: seconds that the other slots have once the quorum is there; 0: two leases, or half the "
       "time that the quorum took if that is longer. Slots that were left out before and that nobody "
       "holds are not waited for",
       between(0, 1e7)},
      deadline);
}

OuterSettings::OuterSettings(const Catalogs& catalogs)
    : method(catalogs.methods, "diloco"),
      lr(std::numeric_limits<double>::quiet_NaN()),
      cut_lr(lr),
      cut_momentum(lr) {}

void OuterSettings::fields(FieldVisitor& f) {
  method.visit(f, {"name", "how slots and coordinator share the work"});
  f.field({"rule", "how a merged change moves the parameters", one_of(outer_rule_names())}, rule);
  f.field({"lr",
           "outer learning rate of what all slots share; auto: from what each merge shows",
           {.min = 0, .min_is_open = true, .choices = {"auto"}}},
          lr);
  f.field({"momentum", "outer momentum of what all slots share (rules nesterov, adam)", below_one()},
          momentum);
  f.field(
      {"cut_lr",
       "outer learning rate of what is cut among the slots; auto: falls as fewer slots stand behind a slice",
       {.min = 0, .min_is_open = true, .choices = {"auto"}}},
      cut_lr);
  Bounds momentum_or_auto = below_one();
  momentum_or_auto.choices = {"auto"};
  f.field(
      {"cut_momentum",
       "outer momentum of what is cut (rules nesterov, adam); auto: with nesterov more of it the more "
       "slices there are, as they must jump shorter, and none with partial.owner_view = \"fast\" or with a "
       "number as cut_lr; with adam outer.momentum",
       momentum_or_auto},
      cut_momentum);
  f.field(
      {"beta2", "rule adam: how much of the mean square of the deltas stays with each merge", below_one()},
      beta2);
  f.field({"epsilon", "rule adam: added to the root of that mean square", positive()}, epsilon);
  f.field(
      {"weight_decay", "share of the parameters, times the rate, that an outer step takes away", at_least(0)},
      weight_decay);
  f.field({"restart_every", "merges after which the outer momentum begins anew; 0: never", at_least(0)},
          restart_every);
}

void InnerSettings::fields(FieldVisitor& f) {
  optimizer.visit(f, {"name", "what a slot does with a gradient"});
  f.field({"clip", "largest norm of the gradient of the owned slices; 0: no clipping", at_least(0)}, clip);
  f.field({"clip_mode",
           "local: the norm of what the slot owns; scaled: times sqrt(all/owned), the norm the whole model "
           "would have",
           one_of({"local", "scaled"})},
          clip_mode);
  f.group(
      {"loss_scale", "of gradients that pass through fp16 (model.precision): doubles and halves by itself"},
      loss_scale);
}

void ScheduleSettings::fields(FieldVisitor& f) {
  schedule.visit(f, {"name", "how the inner learning rate changes over the run"});
}

void DataSettings::fields(FieldVisitor& f) {
  source.visit(f, {"source", "where batches come from"});
  f.field({"path", "folder or file of the training data"}, path);
  tokenizer.visit(f, {"tokenizer", "how text becomes numbers"});
}

void EvalSettings::fields(FieldVisitor& f) {
  f.field({"every", "measure the loss on held-out data every so many rounds; 0: never", at_least(0)}, every);
  f.field({"batches", "held-out batches to measure on; 0: all", at_least(0)}, batches);
}

void GenerateSettings::fields(FieldVisitor& f) {
  f.field({"prompt", "text to go on from"}, prompt);
  f.field({"tokens", "how many tokens to write", at_least(1)}, tokens);
  SamplerSettings::fields(f);
  f.field({"seed", "another seed, another text", at_least(0)}, seed);
}

void CheckpointSettings::fields(FieldVisitor& f) {
  f.field({"every", "write a checkpoint every so many rounds (and at the end)", at_least(1)}, every);
  f.field({"keep", "how many checkpoints stay on disk", at_least(1)}, keep);
}

void NetSettings::fields(FieldVisitor& f) {
  f.field({"listen", "address that the coordinator listens on; only this machine by default"}, listen);
  f.field({"port", "control port, the next one is for tensors; 0: free ones (see endpoints.json)",
           between(0, 65534)},
          port);
  f.field(
      {"metrics_port", "port of the Prometheus page, on this machine only; 0: a free one", between(0, 65535)},
      metrics_port);
  f.field({"lease_seconds",
           "a worker that is not heard for so long loses its slots; all other timeouts follow from it",
           between(0.1, 3600)},
          lease_seconds);
  f.field(
      {"bandwidth",
       "a slow link for each worker, imitated: Mbit/s each way, one for all or one per worker, in turn; 0: "
       "as fast as the real one. Processes only, not debug",
       at_least(0)},
      bandwidth);
  f.field({"latency", "likewise: ms one way on a worker's link", at_least(0)}, latency);
}

void CodecSettings::fields(FieldVisitor& f) {
  up.visit(f, {"up", "encoding of what slots send"});
  down.visit(f, {"down", "encoding of what the coordinator publishes"});
  f.field(
      {"up_feedback",
       "error feedback: share of what encoding left out that a slot adds to its next contribution; 0: none",
       fraction()},
      up_feedback);
  f.field({"down_feedback", "the same of what the coordinator publishes", fraction()}, down_feedback);
}

std::vector<std::string> CodecSettings::problems() const {
  std::vector<std::string> found;
  for (const auto& [way, codec, feedback] :
       {std::tuple{"up", &up, up_feedback}, {"down", &down, down_feedback}}) {
    if (feedback > 0 && codec->name == exact_codec) {
      found.push_back(detail::describe("codec.", way, "_feedback = ", feedback,
                                       " has nothing to feed back: codec.", way,
                                       " = \"fp32\" leaves nothing out"));
    }
  }
  return found;
}

Recipe::Recipe(const Catalogs& catalogs)
    : model(catalogs),
      objective(catalogs),
      outer(catalogs),
      inner(catalogs),
      schedule(catalogs),
      data(catalogs),
      codec(catalogs) {}

void Recipe::fields(FieldVisitor& f) {
  f.field({"seed", "first values, data order and draws all follow from it", at_least(0)}, seed);
  f.field({"device",
           "where a worker computes; cuda needs the CUDA build's plug-in (docs/performance.md) and takes the "
           "plain "
           "block",
           one_of({"cpu", "cuda"})},
          device);
  f.field({"slots", "seats of the training: they fix plan, data and result", between(1, 4096)}, slots);
  f.field(
      {"workers", "processes that hold the slots, for speed alone: the result is the same; 0: one per slot",
       at_least(0)},
      workers);
  f.field({"rounds", "how many times the slots' work is merged", at_least(1)}, rounds);
  f.field(
      {"threads", "compute threads of each worker; the same number gives the same bits", between(1, 1024)},
      threads);
  f.field({"batch", "samples per inner step of a slot", at_least(1)}, batch);
  f.field({"mode", "exact: wait for every slot, re-run lost work; drop: merge without the late ones",
           one_of({"exact", "drop"})},
          mode);
  f.field({"durability", "what a committed merge survives: the death of processes, or of the machine",
           one_of({"process", "machine"})},
          durability);
  f.group({"model", "the model"}, model);
  f.group({"objective", "the training objective"}, objective);
  f.group({"partial", "partial parameter updates: who trains which slices"}, partial);
  f.group({"sync", "when slots and coordinator meet"}, sync);
  f.group({"outer", "the coordinator's optimizer"}, outer);
  f.group({"inner", "the slots' optimizer"}, inner);
  f.group({"schedule", "the learning-rate schedule of the inner optimizer"}, schedule);
  f.group({"data", "training and held-out data"}, data);
  f.group({"eval", "evaluation while training"}, eval);
  f.group({"generate", "samples of the trained model"}, generate);
  f.group({"checkpoint", "checkpoints"}, checkpoint);
  f.group({"net", "network and failure detection"}, net);
  f.group({"codec", "encoding of tensors on the wire"}, codec);
}

std::vector<std::string> Recipe::problems() const {
  std::vector<std::string> found;
  auto say = [&](auto&&... parts) { found.push_back(detail::describe(parts...)); };
  if (workers > slots) {
    say("workers = ", workers, " are more than slots = ", slots, ": a worker without a slot has no work");
  }
  if (partial.problems().empty()) {
    for (std::string& problem : assignment_problems(partial, static_cast<std::int32_t>(slots)))
      found.push_back(std::move(problem));
  }
  if (outer.method.name == "data_parallel" && sync.steps != 1) {
    say("sync.steps = ", sync.steps,
        " does not go with outer.name = \"data_parallel\", which merges after every step; set sync.steps = "
        "1");
  }
  if (outer.method.name == "data_parallel" && partial.blocks()) {
    say("partial.assign = \"block\" does not go with outer.name = \"data_parallel\", whose optimizer counts "
        "one "
        "number of steps for all parameters, whenever their turn came");
  }
  if (partial.average == "slots" && std::isnan(outer.cut_lr)) {
    say("outer.cut_lr = \"auto\" is for partial.average = \"owners\": averaging over all slots damps what is "
        "cut "
        "already; give outer.cut_lr a number");
  }
  if (outer.method.name == "data_parallel" && partial.owner_view == "fast") {
    say("partial.owner_view = \"fast\" does not go with outer.name = \"data_parallel\", whose slots bring "
        "gradients, "
        "not values of their own");
  }
  if (outer.method.name == "eager" &&
      (partial.average == "slots" || partial.replicas > 1 || partial.assign == "explicit")) {
    say(partial.average == "slots" ? "partial.average = \"slots\""
        : partial.replicas > 1     ? "partial.replicas"
                                   : "partial.assign = \"explicit\"",
        " does not go with outer.name = \"eager\", whose slots take their share of a mean over as many "
        "owners for "
        "all rows that they own");
  }
  if (codec.up.name != exact_codec && partial.owner_view == "fast") {
    say("codec.up = \"", codec.up.name,
        "\" does not go with partial.owner_view = \"fast\": owners go on from the very values that they "
        "bring, so "
        "these must arrive as they are; set codec.up = \"fp32\"");
  }
  const bool no_cut_rate = std::isnan(outer.cut_lr) && partial.cut != "none";
  if (outer.rule == "adam" && outer.method.name != "local_sgd" && (std::isnan(outer.lr) || no_cut_rate)) {
    say(std::isnan(outer.lr) ? "outer.lr" : "outer.cut_lr",
        " = \"auto\" is for rules whose step grows with the change; give outer.rule = \"adam\" a number");
  }
  if (outer.method.name == "data_parallel" && (outer.weight_decay > 0 || outer.restart_every > 0)) {
    say(outer.weight_decay > 0 ? "outer.weight_decay" : "outer.restart_every",
        " does not go with outer.name = \"data_parallel\", whose coordinator takes the inner optimizer's "
        "step");
  }
  add_late_problems(*this, found);
  if (sync.quorum > slots) {
    say("sync.quorum = ", sync.quorum, " is more than slots = ", slots, ": no merge could ever reach it");
  }
  if (mode == "exact" && (sync.quorum > 0 || sync.deadline > 0)) {
    say(sync.quorum > 0 ? "sync.quorum" : "sync.deadline", " = ",
        sync.quorum > 0 ? sync.quorum : sync.deadline,
        " has no meaning in mode = \"exact\", which waits for every slot; set mode = \"drop\" or leave it at "
        "0");
  }
  constexpr std::int64_t most_steps = std::int64_t{1} << 53;
  if (rounds > most_steps / sync.steps)
    say("rounds = ", rounds, " times sync.steps = ", sync.steps, " is too large a number");
  return found;
}

void Recipe::resolve() {
  if (workers == 0) workers = slots;
}

}  // namespace tessera
