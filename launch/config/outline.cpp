#include "launch/config/outline.h"

#include <cmath>
#include <cstdio>

#include "base/text.h"

namespace tessera {
namespace {

class OutlineVisitor final : public FieldVisitor {
 public:
  explicit OutlineVisitor(std::vector<OutlineTable>& tables) : tables_(tables) { tables_.push_back({}); }

  void field(const FieldInfo& info, bool& value) override { add(info, "yes or no", toml_text(value)); }
  void field(const FieldInfo& info, std::int64_t& value) override {
    add(info, "whole number", toml_text(value));
  }
  void field(const FieldInfo& info, double& value) override { add(info, "number", toml_text(value)); }
  void field(const FieldInfo& info, std::string& value) override { add(info, "text", toml_text(value)); }
  void field(const FieldInfo& info, std::vector<double>& value) override {
    add(info, "list of numbers", toml_text(value));
  }
  void field(const FieldInfo& info, std::vector<std::string>& value) override {
    add(info, "list of texts", toml_text(value));
  }

  void group(const FieldInfo& info, Settings& settings) override {
    const std::size_t parent = current_;
    const std::string& above = tables_[parent].path;
    current_ = tables_.size();
    tables_.push_back({above.empty() ? info.name : above + "." + info.name, info.help, {}});
    settings.fields(*this);
    current_ = parent;
  }

  void choice(const FieldInfo& info, std::string& name, const SettingsCatalog& catalog,
              std::unique_ptr<Settings>& settings) override {
    add(info, "choice", toml_text(name));
    OutlineField& field = tables_[current_].fields.back();
    field.bounds = bounds_in_words(one_of(catalog.names()));
    field.catalog = &catalog;
    plugin_ = name;
    settings->fields(*this);
    plugin_.clear();
  }

 private:
  void add(const FieldInfo& info, std::string type, std::string value) {
    for (OutlineField& field : tables_[current_].fields) {
      if (field.name != info.name) continue;
      TESSERA_CHECK(field.type == type, ": two types of setting ", info.name, " in table [",
                    tables_[current_].path, "]");
      if (plugin_.empty()) field.plugin.clear();
      return;
    }
    tables_[current_].fields.push_back({info.name, std::move(type), std::move(value),
                                        bounds_in_words(info.bounds), info.help, nullptr, plugin_});
  }
  std::vector<OutlineTable>& tables_;
  std::size_t current_ = 0;
  std::string plugin_;
};

template <class T>
std::string list_text(const std::vector<T>& values) {
  std::vector<std::string> parts;
  for (const T& value : values) parts.push_back(toml_text(value));
  return "[" + join(parts, ", ") + "]";
}

std::string number_text(double value) {
  return std::abs(value) < 1e15 && value == std::floor(value)
             ? std::to_string(static_cast<std::int64_t>(value))
             : format_double(value);
}

}  // namespace

std::vector<OutlineTable> outline_of(Settings& settings) {
  std::vector<OutlineTable> tables;
  OutlineVisitor visitor(tables);
  settings.fields(visitor);
  return tables;
}

std::vector<OutlineField> outline_of_plugin(const SettingsCatalog& catalog, const std::string& name) {
  return outline_of(*catalog.make_settings(name)).front().fields;
}

std::map<std::string, std::string> flat_values(const Recipe& recipe) {
  std::map<std::string, std::string> values;
  // Visiting reads only; fields() is not const because the parser's visitor writes through it.
  for (const OutlineTable& table : outline_of(const_cast<Recipe&>(recipe))) {
    for (const OutlineField& field : table.fields) {
      values[table.path.empty() ? field.name : table.path + "." + field.name] = field.value;
    }
  }
  return values;
}

std::string bounds_in_words(const Bounds& bounds) {
  const bool lower = std::isfinite(bounds.min), upper = std::isfinite(bounds.max);
  std::string words;
  if (lower && upper && !bounds.min_is_open && !bounds.max_is_open) {
    words = "between " + number_text(bounds.min) + " and " + number_text(bounds.max);
  } else {
    if (lower) words = (bounds.min_is_open ? "greater than " : "at least ") + number_text(bounds.min);
    if (upper)
      words += (lower ? " and " : "") + std::string(bounds.max_is_open ? "less than " : "at most ") +
               number_text(bounds.max);
  }
  if (bounds.choices.empty()) return words;
  if (bounds.choices.size() == 1)
    return words.empty() ? bounds.choices[0] : words + ", or " + bounds.choices[0];
  return (words.empty() ? "one of " : words + ", or one of ") + join(bounds.choices, ", ");
}

std::string toml_text(bool value) {
  return value ? "true" : "false";
}
std::string toml_text(std::int64_t value) {
  return std::to_string(value);
}

std::string toml_text(double value) {
  if (std::isnan(value)) return "\"auto\"";
  const std::string text = format_double(value);
  return text.find_first_not_of("-0123456789") == std::string::npos ? text + ".0" : text;
}

std::string toml_text(const std::string& value) {
  std::string text = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      text += {'\\', c};
    } else if (c == '\n') {
      text += "\\n";
    } else if (c == '\t') {
      text += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04X", static_cast<unsigned char>(c));
      text += escaped;
    } else {
      text += c;
    }
  }
  return text + "\"";
}

std::string toml_text(const std::vector<double>& values) {
  return list_text(values);
}
std::string toml_text(const std::vector<std::string>& values) {
  return list_text(values);
}

}  // namespace tessera
