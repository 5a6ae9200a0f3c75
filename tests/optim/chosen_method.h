// A method with some of its settings, by name, without a recipe.
#pragma once
#include <map>
#include <memory>
#include <string>

#include "optim/outer.h"

namespace tessera {

struct MethodChoice {
  std::map<std::string, double> numbers;
  std::map<std::string, std::string> words;
};

inline std::unique_ptr<OuterMethod> chosen_method(const std::string& name, const MethodChoice& choice,
                                                  const OuterMethod::Context& context) {
  struct Set final : FieldVisitor {
    explicit Set(const MethodChoice& from) : wanted(from) {}
    void field(const FieldInfo& info, bool& value) override {
      if (const auto found = wanted.numbers.find(info.name); found != wanted.numbers.end())
        value = found->second != 0;
    }
    void field(const FieldInfo& info, std::int64_t& value) override {
      if (const auto found = wanted.numbers.find(info.name); found != wanted.numbers.end())
        value = static_cast<std::int64_t>(found->second);
    }
    void field(const FieldInfo& info, double& value) override {
      if (const auto found = wanted.numbers.find(info.name); found != wanted.numbers.end())
        value = found->second;
    }
    void field(const FieldInfo& info, std::string& value) override {
      if (const auto found = wanted.words.find(info.name); found != wanted.words.end()) value = found->second;
    }
    void field(const FieldInfo&, std::vector<double>&) override {}
    void field(const FieldInfo&, std::vector<std::string>&) override {}
    void group(const FieldInfo&, Settings&) override {}
    void choice(const FieldInfo&, std::string&, const SettingsCatalog&, std::unique_ptr<Settings>&) override {
    }
    const MethodChoice& wanted;
  };
  const auto settings = Registry<OuterMethod>::builtin().make_settings(name);
  Set set(choice);
  settings->fields(set);
  return Registry<OuterMethod>::builtin().make(name, *settings, context);
}

}  // namespace tessera
