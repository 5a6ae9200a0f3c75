// Registries of plug-ins: one file adds one thing and registers itself under the file's stem with
// TESSERA_REGISTER.
//
// A product class P (a model family, an inner optimizer, a codec...) declares
//   using Context = ...;                                     what every factory is given besides the settings
//   static constexpr const char* kind = "family";
// and a plug-in file ends with
//   TESSERA_REGISTER(Family, gpt, Gpt, GptSettings, "Pre-norm decoder-only transformer");
// where Gpt is constructible from (const GptSettings&, const Family::Context&).
// Filled before main, read-only afterwards.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/fields.h"
#include "base/text.h"

namespace tessera {

/// For plug-ins that have nothing to set.
struct NoSettings : Settings {
  void fields(FieldVisitor&) override {}
};

template <class Product>
class Registry final : public SettingsCatalog {
 public:
  using Context = typename Product::Context;
  struct Entry {
    std::string help;
    std::function<std::unique_ptr<Settings>()> make_settings;
    std::function<std::unique_ptr<Product>(const Settings&, const Context&)> make;
  };

  /// All plug-ins that are linked in.
  static Registry& builtin() {
    static Registry registry;
    return registry;
  }

  void add(const std::string& name, Entry entry) {
    TESSERA_CHECK(entries_.emplace(name, std::move(entry)).second, ": two plug-ins of kind ", Product::kind,
                  " named ", name);
  }
  std::string kind() const override { return Product::kind; }
  std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (const auto& [name, entry] : entries_) names.push_back(name);
    return names;
  }
  bool has(const std::string& name) const { return entries_.count(name) > 0; }
  std::string help(const std::string& name) const override { return entry(name).help; }
  std::unique_ptr<Settings> make_settings(const std::string& name) const override {
    return entry(name).make_settings();
  }
  std::unique_ptr<Product> make(const std::string& name, const Settings& settings,
                                const Context& context) const {
    return entry(name).make(settings, context);
  }
  /// The plug-in with its default settings.
  std::unique_ptr<Product> make(const std::string& name, const Context& context) const {
    return make(name, *make_settings(name), context);
  }
  /// The sentence for an unknown name, with the nearest one.
  Error unknown(const std::string& name) const {
    const std::string near = nearest_name(name, names());
    return fail(ExitCode::usage, "there is no ", Product::kind, " named '", name, "'",
                near.empty() ? "" : "; did you mean '" + near + "'?", " Known: ", join(names(), ", "));
  }

 private:
  const Entry& entry(const std::string& name) const {
    auto found = entries_.find(name);
    TESSERA_CHECK(found != entries_.end(), ": no ", Product::kind, " named ", name);
    return found->second;
  }
  std::map<std::string, Entry> entries_;
};

namespace detail {
constexpr std::string_view stem_of(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  if (slash != std::string_view::npos) path.remove_prefix(slash + 1);
  return path.substr(0, path.find('.'));
}
template <class Product>
struct Registrar {
  Registrar(const char* name, typename Registry<Product>::Entry entry) {
    Registry<Product>::builtin().add(name, std::move(entry));
  }
};
}  // namespace detail
}  // namespace tessera

#define TESSERA_REGISTER(Product, name, Class, SettingsClass, help_text)                              \
  static_assert(::tessera::detail::stem_of(__FILE__) == #name, "a plug-in is named like its file");   \
  static const ::tessera::detail::Registrar<Product> tessera_registrar_##name(                        \
      #name, {help_text, [] { return std::make_unique<SettingsClass>(); },                            \
              [](const ::tessera::Settings& settings,                                                 \
                 const Product::Context& context) -> std::unique_ptr<Product> {                       \
                return std::make_unique<Class>(static_cast<const SettingsClass&>(settings), context); \
              }})
