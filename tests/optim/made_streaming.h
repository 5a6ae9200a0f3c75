// Streaming with settings of its own, for tests without a recipe.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/fields.h"
#include "optim/outer.h"

namespace tessera {

struct StreamingChoice {
  std::int64_t fragments = 2, tau = 0;
  std::string pattern = "strided";
  double alpha = 0;
};
inline std::unique_ptr<OuterMethod> make_streaming(const StreamingChoice& choice,
                                                   OuterMethod::Context context) {
  struct Set final : FieldVisitor {
    explicit Set(const StreamingChoice& from) : wanted(from) {}
    void field(const FieldInfo&, bool&) override {}
    void field(const FieldInfo& info, std::int64_t& value) override {
      value = info.name == "tau" ? wanted.tau : wanted.fragments;
    }
    void field(const FieldInfo&, double& value) override { value = wanted.alpha; }
    void field(const FieldInfo&, std::string& value) override { value = wanted.pattern; }
    void field(const FieldInfo&, std::vector<double>&) override {}
    void field(const FieldInfo&, std::vector<std::string>&) override {}
    void group(const FieldInfo&, Settings&) override {}
    void choice(const FieldInfo&, std::string&, const SettingsCatalog&, std::unique_ptr<Settings>&) override {
    }
    const StreamingChoice& wanted;
  };
  auto settings = Registry<OuterMethod>::builtin().make_settings("streaming");
  Set set(choice);
  settings->fields(set);
  return Registry<OuterMethod>::builtin().make("streaming", *settings, context);
}

}  // namespace tessera
