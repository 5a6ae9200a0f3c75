// The settings tree as data: tables with their settings, defaults, bounds and help in words. Describing,
// documenting, comparing recipes and suggesting names all start here.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "launch/config/recipe.h"

namespace tessera {

/// One setting.
struct OutlineField {
  std::string name;    ///< "steps"
  std::string type;    ///< "whole number", "number", "text", "yes or no", "list of numbers", "choice"
  std::string value;   ///< as TOML
  std::string bounds;  ///< "at least 1"; "" for anything
  std::string help;
  const SettingsCatalog* catalog = nullptr;  ///< of a choice
  std::string plugin;  ///< name of the chosen plug-in that brings it; "" for the table's own
};

/// One table of the recipe.
struct OutlineTable {
  std::string path;  ///< "" for the top level, "sync", ...
  std::string help;
  /// Its own and those of the chosen plug-ins, in order. A plug-in may declare a setting of its table again
  /// (a codec for both directions): it stands here once, and all get the one value.
  std::vector<OutlineField> fields;
};

/// The tree with its present values.
std::vector<OutlineTable> outline_of(Settings& settings);
/// The settings of one plug-in with their defaults.
std::vector<OutlineField> outline_of_plugin(const SettingsCatalog& catalog, const std::string& name);
/// "sync.steps" -> "20", values as TOML.
std::map<std::string, std::string> flat_values(const Recipe& recipe);

/// "at least 1", "one of exact, drop"; "" for anything.
std::string bounds_in_words(const Bounds& bounds);

/// Values as TOML writes them; doubles read back bit for bit.
std::string toml_text(bool value);
std::string toml_text(std::int64_t value);
std::string toml_text(double value);  ///< NaN is "auto"
std::string toml_text(const std::string& value);
std::string toml_text(const std::vector<double>& values);
std::string toml_text(const std::vector<std::string>& values);

}  // namespace tessera
