#include "launch/config/parse.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <tuple>

#include "base/text.h"
#include "launch/config/document.h"
#include "launch/config/outline.h"

namespace tessera {
namespace {

struct Problem {
  Place place;
  std::string text;
};

/// The words of a sentence that could name a setting.
std::vector<std::string> names_in(const std::string& sentence) {
  std::vector<std::string> names(1);
  for (const char c : sentence) {
    if (std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.') {
      names.back() += c;
    } else if (!names.back().empty()) {
      names.emplace_back();
    }
  }
  return names;
}

std::string did_you_mean(const std::string& name) {
  return name.empty() ? "" : "; did you mean " + name + "?";
}

/// Writes what the document says into the settings that visit it, and notes what is wrong.
class Reader final : public FieldVisitor {
 public:
  Reader(const Node& document, Recipe& recipe) : recipe_(recipe) {
    read({.node = &document, .path = ""}, recipe);
  }
  std::vector<Problem>& problems() { return problems_; }

  void field(const FieldInfo& info, bool& value) override {
    const Node* node = find(info.name);
    if (node == nullptr) return;
    if (const auto* flag = std::get_if<bool>(&node->value.data)) {
      value = *flag;
    } else {
      wants(info, *node, "true or false");
    }
  }
  void field(const FieldInfo& info, std::int64_t& value) override {
    const Node* node = find(info.name);
    if (node == nullptr) return;
    const auto* whole = std::get_if<std::int64_t>(&node->value.data);
    if (whole == nullptr) return wants(info, *node, "a whole number");
    if (within(info, *node, static_cast<double>(*whole))) value = *whole;
  }
  void field(const FieldInfo& info, double& value) override {
    const Node* node = find(info.name);
    if (node == nullptr) return;
    const auto* word = std::get_if<std::string>(&node->value.data);
    if (word != nullptr && std::count(info.bounds.choices.begin(), info.bounds.choices.end(), *word) > 0) {
      value = std::nan("");
      return;
    }
    const std::optional<double> number = number_of(node->value);
    if (!number) {
      return wants(
          info, *node,
          info.bounds.choices.empty() ? "a number" : "a number or " + join(info.bounds.choices, ", "));
    }
    if (within(info, *node, *number)) value = *number;
  }
  void field(const FieldInfo& info, std::string& value) override {
    const Node* node = find(info.name);
    if (node == nullptr) return;
    const std::optional<std::string> text = text_of(*node);
    if (!text) return wants(info, *node, "text in quotes");
    const std::vector<std::string>& choices = info.bounds.choices;
    if (!choices.empty() && std::count(choices.begin(), choices.end(), *text) == 0) {
      return bad(info.name, node->place,
                 path_of(info.name) + " must be " + bounds_in_words(info.bounds) + ", got \"" + *text + "\"" +
                     did_you_mean(nearest_name(*text, choices)));
    }
    value = *text;
  }
  void field(const FieldInfo& info, std::vector<double>& value) override {
    const Node* node = find(info.name);
    if (node == nullptr) return;
    const auto* list = std::get_if<Values>(&node->value.data);
    if (list == nullptr) return wants(info, *node, "a list of numbers, such as [0.9, 0.95]");
    std::vector<double> numbers;
    for (const Value& element : *list) {
      const std::optional<double> number = number_of(element);
      if (!number)
        return wants(info, *node, "numbers in its list; " + describe_value(element) + " is none", false);
      if (!within(info, *node, *number)) return;
      numbers.push_back(*number);
    }
    value = std::move(numbers);
  }
  void field(const FieldInfo& info, std::vector<std::string>& value) override {
    const Node* node = find(info.name);
    if (node == nullptr) return;
    const auto* list = std::get_if<Values>(&node->value.data);
    if (list == nullptr) return wants(info, *node, "a list of texts, such as [\"a\", \"b\"]");
    std::vector<std::string> texts;
    for (const Value& element : *list) {
      const auto* text = std::get_if<std::string>(&element.data);
      if (text == nullptr)
        return wants(info, *node, "texts in its list; " + describe_value(element) + " is none", false);
      texts.push_back(*text);
    }
    value = std::move(texts);
  }

  void group(const FieldInfo& info, Settings& settings) override {
    const Node* node = child(info.name);
    scope_.tables.push_back(info.name);
    if (node != nullptr && !node->is_table) {
      bad(info.name, node->key,
          path_of(info.name) + " is a table: write [" + path_of(info.name) + "] and its settings below it");
      node = nullptr;
    }
    const std::string path = path_of(info.name);
    Scope outer = std::move(scope_);
    read({.node = node, .path = path}, settings);
    scope_ = std::move(outer);
  }

  void choice(const FieldInfo& info, std::string& name, const SettingsCatalog& catalog,
              std::unique_ptr<Settings>& settings) override {
    if (const Node* node = find(info.name)) {
      const std::vector<std::string> names = catalog.names();
      const std::optional<std::string> typed = text_of(*node);
      if (!typed || std::count(names.begin(), names.end(), *typed) == 0) {
        scope_.plugin_unknown = true;
        if (!typed) return wants(info, *node, "the name of a " + catalog.kind() + " in quotes");
        return bad(info.name, node->place,
                   path_of(info.name) + ": there is no " + catalog.kind() + " named \"" + *typed + "\"" +
                       did_you_mean(nearest_name(*typed, names)) + " (known: " + join(names, ", ") + ")");
      }
      name = *typed;
      settings = catalog.make_settings(name);
    }
    scope_.plugins.push_back({&catalog, name});
    settings->fields(*this);
    scope_.to_check.push_back(settings.get());
  }

 private:
  /// The table that is being read.
  struct Scope {
    const Node* node = nullptr;  ///< null: the file has no such table
    std::string path;
    std::vector<std::string> known{};                                       ///< names seen so far
    std::vector<std::string> tables{};                                      ///< of them, those of tables
    std::set<std::string> bad{};                                            ///< of them, those with a problem
    std::vector<std::pair<const SettingsCatalog*, std::string>> plugins{};  ///< chosen here
    std::vector<const Settings*> to_check{};
    bool plugin_unknown = false;  ///< so nobody knows which settings it has
  };

  void read(Scope scope, Settings& settings) {
    scope_ = std::move(scope);
    settings.fields(*this);
    scope_.to_check.push_back(&settings);
    if (scope_.node != nullptr && !scope_.plugin_unknown) report_unknown();
    if (scope_.path.empty()) {
      check_across_tables(settings);
    } else if (scope_.bad.empty()) {
      for (const Settings* part : scope_.to_check) {
        for (const std::string& sentence : part->problems()) {
          const bool says_where = sentence.starts_with(scope_.path + ".");
          problems_.push_back({place_of(sentence), (says_where ? "" : "[" + scope_.path + "] ") + sentence});
        }
      }
    }
  }

  /// A sentence about several tables is left out when one of the settings it names has a problem already.
  void check_across_tables(const Settings& settings) {
    for (const std::string& sentence : settings.problems()) {
      const std::vector<std::string> names = names_in(sentence);
      if (std::any_of(names.begin(), names.end(),
                      [&](const std::string& name) { return all_bad_.count(name) > 0; }))
        continue;
      problems_.push_back({place_of(sentence), sentence});
    }
  }

  void report_unknown() {
    for (const auto& [name, node] : scope_.node->children) {
      if (std::count(scope_.known.begin(), scope_.known.end(), name) > 0) continue;
      const std::string path = path_of(name);
      if (node.is_table) {
        const std::string near = nearest_name(name, scope_.tables);
        problems_.push_back({node.key, "there is no table [" + path + "]" +
                                           did_you_mean(near.empty() ? "" : "[" + path_of(near) + "]")});
      } else {
        problems_.push_back({node.key, "there is no setting " + path + suggestion(name)});
      }
    }
  }

  /// What was probably meant by an unknown setting of this table.
  std::string suggestion(const std::string& name) const {
    for (const auto& [catalog, chosen] : scope_.plugins) {
      for (const std::string& other : catalog->names()) {
        for (const OutlineField& field : outline_of_plugin(*catalog, other)) {
          if (field.name == name)
            return ": " + catalog->kind() + " " + other + " has it, " + chosen + " has not";
        }
      }
    }
    for (const auto& [path, value] : flat_values(recipe_)) {
      const std::size_t dot = path.rfind('.');
      if (dot != std::string::npos && path.substr(dot + 1) == name) return did_you_mean(path);
    }
    const std::string near = nearest_name(name, scope_.known);
    return did_you_mean(near.empty() ? "" : path_of(near));
  }

  std::string path_of(const std::string& name) const {
    return scope_.path.empty() ? name : scope_.path + "." + name;
  }

  const Node* child(const std::string& name) {
    scope_.known.push_back(name);
    if (scope_.node == nullptr) return nullptr;
    auto found = scope_.node->children.find(name);
    return found == scope_.node->children.end() ? nullptr : &found->second;
  }
  /// The node of a single value, or null where the document says nothing (or a table).
  const Node* find(const std::string& name) {
    const Node* node = child(name);
    if (node == nullptr || !node->is_table) return node;
    bad(name, node->key, path_of(name) + " is a setting, not a table");
    return nullptr;
  }

  /// Where the first setting stands that the sentence names; else the table.
  Place place_of(const std::string& sentence) const {
    if (scope_.node == nullptr) return {};
    for (const std::string& name : names_in(sentence)) {
      const Node* node = scope_.node;
      const bool whole_path = !scope_.path.empty() && name.starts_with(scope_.path + ".");
      for (const std::string& part : split(whole_path ? name.substr(scope_.path.size() + 1) : name, '.')) {
        auto found = node->children.find(part);
        node = found == node->children.end() ? nullptr : &found->second;
        if (node == nullptr) break;
      }
      if (node != nullptr && !node->is_table) return node->place;
    }
    return scope_.node->key;
  }

  void bad(const std::string& name, const Place& place, std::string text) {
    scope_.bad.insert(name);
    all_bad_.insert(path_of(name));
    problems_.push_back({place, std::move(text)});
  }
  void wants(const FieldInfo& info, const Node& node, const std::string& what, bool say_value = true) {
    const std::string got = node.from_override ? node.value.written : describe_value(node.value);
    bad(info.name, node.place, path_of(info.name) + " wants " + what + (say_value ? ", got " + got : ""));
  }
  bool within(const FieldInfo& info, const Node& node, double value) {
    const Bounds& bounds = info.bounds;
    const bool low = bounds.min_is_open ? value <= bounds.min : value < bounds.min;
    const bool high = bounds.max_is_open ? value >= bounds.max : value > bounds.max;
    if (std::isfinite(value) && !low && !high) return true;
    const std::string words = bounds_in_words(bounds);
    const std::string must = words.empty() ? "finite" : words;
    bad(info.name, node.place,
        path_of(info.name) + " must be " + must + ", got " + describe_value({value, {}}));
    return false;
  }

  static std::optional<double> number_of(const Value& value) {
    if (const auto* whole = std::get_if<std::int64_t>(&value.data)) return static_cast<double>(*whole);
    if (const auto* number = std::get_if<double>(&value.data)) return *number;
    return std::nullopt;
  }
  /// An override's value for a text setting needs no quotes, even where it reads like a number.
  static std::optional<std::string> text_of(const Node& node) {
    if (const auto* text = std::get_if<std::string>(&node.value.data)) return *text;
    if (node.from_override) return node.value.written;
    return std::nullopt;
  }

  Recipe& recipe_;
  Scope scope_;
  std::set<std::string> all_bad_;
  std::vector<Problem> problems_;
};

std::string lines_of(std::vector<Problem> problems, const std::string& file) {
  std::stable_sort(problems.begin(), problems.end(), [](const Problem& a, const Problem& b) {
    return std::tuple(a.place.override_number, a.place.line, a.place.column) <
           std::tuple(b.place.override_number, b.place.line, b.place.column);
  });
  std::vector<std::string> lines;
  for (const Problem& problem : problems) lines.push_back(problem.place.text(file) + ": " + problem.text);
  return join(lines, "\n");
}

}  // namespace

Result<Recipe> parse_recipe(std::string_view text, const std::string& file,
                            const std::vector<std::string>& overrides, const Catalogs& catalogs) {
  TESSERA_ASSIGN(Node document, read_document(text, file));
  std::vector<std::string> malformed;
  for (std::size_t i = 0; i < overrides.size(); ++i) {
    const Status status = apply_override(document, overrides[i], static_cast<std::int32_t>(i));
    if (!status.ok()) malformed.push_back(status.error().message);
  }
  Recipe recipe(catalogs);
  Reader reader(document, recipe);
  std::string lines = lines_of(std::move(reader.problems()), file);
  for (const std::string& line : malformed) lines += (lines.empty() ? "" : "\n") + line;
  if (!lines.empty()) return fail(ExitCode::usage, lines);
  recipe.resolve();
  return recipe;
}

Result<Recipe> load_recipe(const std::string& file, const std::vector<std::string>& overrides,
                           const Catalogs& catalogs) {
  if (file.empty()) return parse_recipe("", "(no recipe file)", overrides, catalogs);
  if (!std::filesystem::exists(file)) return fail(ExitCode::usage, "there is no recipe file ", file);
  std::ifstream in(file, std::ios::binary);
  if (!in || std::filesystem::is_directory(file))
    return fail(ExitCode::usage, "cannot read the recipe file ", file);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  return parse_recipe(text, file, overrides, catalogs);
}

}  // namespace tessera
