// Settings are declared once: a struct lists its fields to a visitor with name, help and bounds, the member's
// initial value is the default. Parser, `describe`, the resolved recipe and docs/config.md are visitors
// (launch/config*).
//
//   struct SyncSettings : Settings {
//     std::int64_t steps = 100;
//     void fields(FieldVisitor& f) override { f.field({"steps", "local steps H between merges", at_least(1)},
//     steps); }
//   };
#pragma once
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace tessera {

/// What a value must satisfy. Numbers use min and max; strings use choices (empty: anything goes).
struct Bounds {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool min_is_open = false;  ///< the value must be greater than min, not equal
  bool max_is_open = false;
  std::vector<std::string> choices{};
};
inline Bounds anything() {
  return {};
}
inline Bounds at_least(double min) {
  return {.min = min};
}
inline Bounds positive() {
  return {.min = 0, .min_is_open = true};
}
inline Bounds between(double min, double max) {
  return {.min = min, .max = max};
}
inline Bounds fraction() {
  return {.min = 0, .max = 1};
}  ///< [0, 1]
inline Bounds below_one() {
  return {.min = 0, .max = 1, .max_is_open = true};
}  ///< [0, 1)
inline Bounds one_of(std::vector<std::string> choices) {
  return {.choices = std::move(choices)};
}

struct FieldInfo {
  std::string name;
  std::string help;
  Bounds bounds{};
};

struct Settings;

/// The plug-ins that a `name` setting chooses from; each brings settings of its own. Registry implements it.
class SettingsCatalog {
 public:
  virtual ~SettingsCatalog() = default;
  virtual std::string kind() const = 0;                ///< "family", "inner optimizer", ...
  virtual std::vector<std::string> names() const = 0;  ///< sorted
  virtual std::string help(const std::string& name) const = 0;
  virtual std::unique_ptr<Settings> make_settings(const std::string& name) const = 0;
};

class FieldVisitor {
 public:
  virtual ~FieldVisitor() = default;
  virtual void field(const FieldInfo& info, bool& value) = 0;
  virtual void field(const FieldInfo& info, std::int64_t& value) = 0;
  virtual void field(const FieldInfo& info, double& value) = 0;
  virtual void field(const FieldInfo& info, std::string& value) = 0;
  virtual void field(const FieldInfo& info, std::vector<double>& value) = 0;
  virtual void field(const FieldInfo& info, std::vector<std::string>& value) = 0;
  /// A table of its own: [name] in the recipe.
  virtual void group(const FieldInfo& info, Settings& settings) = 0;
  /// A choice of plug-in by name; its settings stand beside the name in the same table. The visitor may
  /// replace `settings` when it reads another name. Afterwards settings is never null.
  virtual void choice(const FieldInfo& info, std::string& name, const SettingsCatalog& catalog,
                      std::unique_ptr<Settings>& settings) = 0;
};

struct Settings {
  virtual ~Settings() = default;
  virtual void fields(FieldVisitor& f) = 0;
  /// What single bounds cannot say (heads must divide width): sentences, each naming the setting. Called
  /// after all fields are read, on this struct alone.
  virtual std::vector<std::string> problems() const { return {}; }
};

}  // namespace tessera
