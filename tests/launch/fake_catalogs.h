// Small catalogs for tests of the settings tree, so that they need neither torch nor the real plug-ins.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/registry.h"
#include "launch/config/recipe.h"

namespace tessera::testing_launch {

class FakeCatalog final : public SettingsCatalog {
 public:
  using Make = std::function<std::unique_ptr<Settings>()>;
  FakeCatalog(std::string kind, std::map<std::string, Make> plugins)
      : kind_(std::move(kind)), plugins_(std::move(plugins)) {}
  std::string kind() const override { return kind_; }
  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, make] : plugins_) names.push_back(name);
    return names;
  }
  std::string help(const std::string& name) const override { return "the " + kind_ + " " + name; }
  std::unique_ptr<Settings> make_settings(const std::string& name) const override {
    return plugins_.at(name)();
  }

 private:
  std::string kind_;
  std::map<std::string, Make> plugins_;
};

struct FakeGpt : Settings {
  std::int64_t width = 64, heads = 4;
  bool tied = true;
  void fields(FieldVisitor& f) override {
    f.field({"width", "width of the residual stream", at_least(1)}, width);
    f.field({"heads", "attention heads", at_least(1)}, heads);
    f.field({"tied", "output head is the embedding"}, tied);
  }
  std::vector<std::string> problems() const override {
    if (width % heads == 0) return {};
    return {"heads = " + std::to_string(heads) + " do not divide width = " + std::to_string(width)};
  }
};

struct FakeAdamw : Settings {
  double lr = 1e-3, weight_decay = 0.1;
  std::vector<double> betas{0.9, 0.95};
  void fields(FieldVisitor& f) override {
    f.field({"lr", "learning rate", positive()}, lr);
    f.field({"betas", "decay of the moments", below_one()}, betas);
    f.field({"weight_decay", "decoupled weight decay", at_least(0)}, weight_decay);
  }
};

struct FakeSgd : Settings {
  double lr = 0.1, momentum = 0.9;
  void fields(FieldVisitor& f) override {
    f.field({"lr", "learning rate", positive()}, lr);
    f.field({"momentum", "momentum", below_one()}, momentum);
  }
};

template <class S>
FakeCatalog::Make maker() {
  return [] { return std::make_unique<S>(); };
}

struct FakeCatalogs {
  FakeCatalog families{"model family", {{"gpt", maker<FakeGpt>()}, {"lstm", maker<NoSettings>()}}};
  FakeCatalog objectives{"objective", {{"cross_entropy", maker<NoSettings>()}}};
  FakeCatalog methods{"method", {{"diloco", maker<NoSettings>()}, {"data_parallel", maker<NoSettings>()}}};
  FakeCatalog inner{"inner optimizer", {{"adamw", maker<FakeAdamw>()}, {"sgd", maker<FakeSgd>()}}};
  FakeCatalog schedules{"schedule", {{"constant", maker<NoSettings>()}, {"cosine", maker<NoSettings>()}}};
  FakeCatalog sources{"data source", {{"text", maker<NoSettings>()}}};
  FakeCatalog tokenizers{"tokenizer", {{"bytes", maker<NoSettings>()}}};
  FakeCatalog codecs{"codec", {{"fp32", maker<NoSettings>()}}};
  Catalogs all() const {
    return {&families, &objectives, &methods, &inner, &schedules, &sources, &tokenizers, &codecs};
  }
};

}  // namespace tessera::testing_launch
