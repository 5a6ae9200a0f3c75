// The tree of settings: everything that a recipe says about a run. Each setting is declared once, in
// fields(); parser, writer, `tessera describe` and docs/config.md are visitors. Torch-free: registries that
// live in torch rooms come in as Catalogs.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/fields.h"
#include "coordinator/planner.h"
#include "eval/sampler.h"
#include "optim/loss_scale.h"

namespace tessera {

/// The plug-ins that a recipe chooses from. launch/catalogs.h gives the built-in ones; tests bring their own.
struct Catalogs {
  const SettingsCatalog* families = nullptr;
  const SettingsCatalog* objectives = nullptr;
  const SettingsCatalog* methods = nullptr;
  const SettingsCatalog* inner = nullptr;
  const SettingsCatalog* schedules = nullptr;
  const SettingsCatalog* sources = nullptr;
  const SettingsCatalog* tokenizers = nullptr;
  const SettingsCatalog* codecs = nullptr;
};

/// A chosen plug-in: its name and the settings it brings. Registry<P>::builtin().make(name, *settings,
/// context) builds it.
struct Choice {
  const SettingsCatalog* catalog = nullptr;
  std::string name;
  std::unique_ptr<Settings> settings;  ///< never null

  /// Chooses `preferred`, or the catalog's first name when it has none of that name.
  Choice(const SettingsCatalog* catalog, const std::string& preferred);
  void visit(FieldVisitor& f, const FieldInfo& info) { f.choice(info, name, *catalog, settings); }
};

struct ModelSettings : Settings {
  Choice family;
  std::int64_t vocab = 0;  ///< 0: the tokenizer's own
  explicit ModelSettings(const Catalogs& catalogs) : family(catalogs.families, "gpt") {}
  void fields(FieldVisitor& f) override;
};

struct ObjectiveSettings : Settings {
  Choice objective;
  explicit ObjectiveSettings(const Catalogs& catalogs) : objective(catalogs.objectives, "cross_entropy") {}
  void fields(FieldVisitor& f) override;
};

struct SyncSettings : Settings {
  std::int64_t steps = 50;  ///< H
  std::int64_t quorum = 0;  ///< mode drop: contributions that may close a merge; 0: two thirds
  double deadline = 0;      ///< mode drop: seconds for the others after that; 0: derived
  void fields(FieldVisitor& f) override;
};

struct OuterSettings : Settings {
  Choice method;
  std::string rule = "nesterov";
  double lr;  ///< NaN: "auto"
  double momentum = 0.5;
  double cut_lr;                        ///< NaN: "auto"
  double cut_momentum;                  ///< NaN: "auto"
  double beta2 = 0.99, epsilon = 1e-3;  ///< rule adam
  double weight_decay = 0;
  std::int64_t restart_every = 0;
  explicit OuterSettings(const Catalogs& catalogs);
  void fields(FieldVisitor& f) override;
};

struct InnerSettings : Settings {
  Choice optimizer;
  double clip = 1.0;  ///< norm to which gradients are clipped; 0: not at all
  std::string clip_mode = "local";
  LossScaleSettings loss_scale;
  explicit InnerSettings(const Catalogs& catalogs) : optimizer(catalogs.inner, "adamw") {}
  void fields(FieldVisitor& f) override;
};

struct ScheduleSettings : Settings {
  Choice schedule;
  explicit ScheduleSettings(const Catalogs& catalogs) : schedule(catalogs.schedules, "cosine") {}
  void fields(FieldVisitor& f) override;
};

struct DataSettings : Settings {
  Choice source;
  Choice tokenizer;
  std::string path = "data";
  explicit DataSettings(const Catalogs& catalogs)
      : source(catalogs.sources, "text"), tokenizer(catalogs.tokenizers, "bytes") {}
  void fields(FieldVisitor& f) override;
};

struct EvalSettings : Settings {
  std::int64_t every = 5;    ///< rounds; 0: never
  std::int64_t batches = 0;  ///< 0: all held-out data
  void fields(FieldVisitor& f) override;
};

struct GenerateSettings : SamplerSettings {
  std::string prompt = "It is a truth";
  std::int64_t tokens = 200;
  std::int64_t seed = 0;
  void fields(FieldVisitor& f) override;
};

struct CheckpointSettings : Settings {
  std::int64_t every = 5;  ///< rounds
  std::int64_t keep = 3;
  void fields(FieldVisitor& f) override;
};

struct NetSettings : Settings {
  std::string listen = "127.0.0.1";
  std::int64_t port = 0;          ///< control; bulk takes the next one; 0: free ones
  std::int64_t metrics_port = 0;  ///< Prometheus page; 0: a free one
  double lease_seconds = 10;
  std::vector<double> bandwidth;  ///< Mbit/s; worker i has the one of i mod their number; 0: the real link's
  std::vector<double> latency;    ///< ms one way, likewise
  void fields(FieldVisitor& f) override;
};

struct CodecSettings : Settings {
  Choice up, down;
  double up_feedback = 0, down_feedback = 0;
  explicit CodecSettings(const Catalogs& catalogs)
      : up(catalogs.codecs, "fp32"), down(catalogs.codecs, "fp32") {}
  void fields(FieldVisitor& f) override;
  std::vector<std::string> problems() const override;
};

struct Recipe : Settings {
  std::int64_t seed = 0;
  std::string device = "cpu";
  std::int64_t slots = 4;
  std::int64_t workers = 0;  ///< after resolve(): never 0
  std::int64_t rounds = 20;
  std::int64_t threads = 1;
  std::int64_t batch = 8;
  std::string mode = "exact";
  std::string durability = "process";
  ModelSettings model;
  ObjectiveSettings objective;
  PartialSettings partial;
  SyncSettings sync;
  OuterSettings outer;
  InnerSettings inner;
  ScheduleSettings schedule;
  DataSettings data;
  EvalSettings eval;
  GenerateSettings generate;
  CheckpointSettings checkpoint;
  NetSettings net;
  CodecSettings codec;

  /// All defaults.
  explicit Recipe(const Catalogs& catalogs);
  void fields(FieldVisitor& f) override;
  /// What no single table can say (more slices than slots). Every sentence starts with the dotted name of a
  /// setting.
  std::vector<std::string> problems() const override;
  /// Puts numbers where the recipe says "auto" or 0 for "as many as slots". The parser calls it last.
  void resolve();
  /// Inner steps of a slot in the whole run: the horizon of schedules that are given none. Rounds of async
  /// are single contributions, of all slots together.
  std::int64_t horizon() const {
    const std::int64_t of_a_slot = outer.method.name == "async" ? (rounds + slots - 1) / slots : rounds;
    return of_a_slot * sync.steps;
  }
};

}  // namespace tessera
