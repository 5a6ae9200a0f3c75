#include "launch/reproduce/toml_reader.h"

#include <algorithm>
#include <tuple>

#include "base/text.h"
#include "launch/config/outline.h"

namespace tessera {
namespace {

/// Children in the order of the file (the map has them by name).
std::vector<std::pair<std::string, const Node*>> in_order(const Node& node) {
  std::vector<std::pair<std::string, const Node*>> children;
  for (const auto& [name, child] : node.children) children.emplace_back(name, &child);
  std::stable_sort(children.begin(), children.end(), [](const auto& a, const auto& b) {
    return std::tie(a.second->key.line, a.second->key.column) <
           std::tie(b.second->key.line, b.second->key.column);
  });
  return children;
}

std::string toml_of(const Value& value) {
  if (const auto* flag = std::get_if<bool>(&value.data)) return toml_text(*flag);
  if (const auto* whole = std::get_if<std::int64_t>(&value.data)) return toml_text(*whole);
  if (const auto* number = std::get_if<double>(&value.data)) return toml_text(*number);
  if (const auto* text = std::get_if<std::string>(&value.data)) return toml_text(*text);
  if (const auto* list = std::get_if<Values>(&value.data)) {
    std::vector<std::string> parts;
    for (const Value& element : *list) parts.push_back(toml_of(element));
    return "[" + join(parts, ", ") + "]";
  }
  return toml_text(value.written);
}

void add_settings(const Node& node, const std::string& prefix, Said& said) {
  for (const auto& [name, child] : in_order(node)) {
    const std::string path = prefix.empty() ? name : prefix + "." + name;
    if (child->is_table) {
      add_settings(*child, path, said);
    } else {
      said.emplace_back(path, toml_of(child->value));
    }
  }
}

}  // namespace

Said settings_of(const Node& document) {
  Said said;
  add_settings(document, "", said);
  return said;
}

const Node* TomlTable::find(const std::string& name) {
  asked_.push_back(name);
  const auto found = node_->children.find(name);
  return found == node_->children.end() ? nullptr : &found->second;
}

void TomlTable::problem(const std::string& what) {
  problems_->push_back(file_ + ": " + (path_.empty() ? "" : "[" + path_ + "] ") + what);
}

void TomlTable::wrong(const std::string& name, const Node& node, const char* wanted) {
  problems_->push_back(node.place.text(file_) + ": " + (path_.empty() ? name : path_ + "." + name) +
                       " wants " + wanted);
}

std::string TomlTable::text(const std::string& name, const std::string& otherwise) {
  const Node* node = find(name);
  if (node == nullptr) return otherwise;
  if (const auto* text = std::get_if<std::string>(&node->value.data); text && !node->is_table) return *text;
  wrong(name, *node, "a text");
  return otherwise;
}

std::string TomlTable::needed_text(const std::string& name) {
  if (!has(name)) problem("needs " + name + " = \"...\"");
  return text(name, "");
}

double TomlTable::number(const std::string& name, double otherwise) {
  const Node* node = find(name);
  if (node == nullptr) return otherwise;
  if (const auto* whole = std::get_if<std::int64_t>(&node->value.data)) return static_cast<double>(*whole);
  if (const auto* number = std::get_if<double>(&node->value.data)) return *number;
  wrong(name, *node, "a number");
  return otherwise;
}

bool TomlTable::flag(const std::string& name, bool otherwise) {
  const Node* node = find(name);
  if (node == nullptr) return otherwise;
  if (const auto* flag = std::get_if<bool>(&node->value.data)) return *flag;
  wrong(name, *node, "true or false");
  return otherwise;
}

std::vector<std::string> TomlTable::texts(const std::string& name) {
  const Node* node = find(name);
  if (node == nullptr) return {};
  std::vector<std::string> texts;
  if (const auto* list = std::get_if<Values>(&node->value.data)) {
    for (const Value& value : *list) {
      if (const auto* text = std::get_if<std::string>(&value.data)) texts.push_back(*text);
    }
    if (texts.size() == list->size()) return texts;
  }
  wrong(name, *node, "a list of texts");
  return {};
}

std::vector<std::int64_t> TomlTable::whole_numbers(const std::string& name) {
  const Node* node = find(name);
  if (node == nullptr) return {};
  std::vector<std::int64_t> numbers;
  if (const auto* list = std::get_if<Values>(&node->value.data)) {
    for (const Value& value : *list) {
      if (const auto* number = std::get_if<std::int64_t>(&value.data)) numbers.push_back(*number);
    }
    if (numbers.size() == list->size()) return numbers;
  }
  wrong(name, *node, "a list of whole numbers");
  return {};
}

Said TomlTable::settings(const std::string& name) {
  const Node* node = find(name);
  if (node == nullptr) return {};
  if (!node->is_table) wrong(name, *node, "a table of settings");
  return settings_of(*node);
}

std::vector<std::pair<std::string, TomlTable>> TomlTable::tables(const std::string& name) {
  const Node* node = find(name);
  if (node == nullptr) return {};
  std::vector<std::pair<std::string, TomlTable>> tables;
  const std::string path = path_.empty() ? name : path_ + "." + name;
  for (const auto& [key, child] : in_order(*node)) {
    if (child->is_table) {
      tables.emplace_back(key, TomlTable(*child, path + "." + key, file_, *problems_));
    } else {
      wrong(name + "." + key, *child, "a table");
    }
  }
  return tables;
}

std::vector<std::pair<std::string, Said>> TomlTable::named_settings() {
  std::vector<std::pair<std::string, Said>> all;
  for (const auto& [name, child] : in_order(*node_)) all.emplace_back(name, settings(name));
  return all;
}

std::vector<std::pair<std::string, std::vector<std::string>>> TomlTable::named_texts(
    const std::string& name) {
  const Node* node = find(name);
  if (node == nullptr) return {};
  std::vector<std::pair<std::string, std::vector<std::string>>> all;
  TomlTable inner(*node, path_.empty() ? name : path_ + "." + name, file_, *problems_);
  for (const auto& [key, child] : in_order(*node)) all.emplace_back(key, inner.texts(key));
  return all;
}

void TomlTable::refuse_the_rest() {
  for (const auto& [name, child] : node_->children) {
    if (std::count(asked_.begin(), asked_.end(), name) > 0) continue;
    const std::string near = nearest_name(name, asked_);
    problems_->push_back(child.key.text(file_) + ": there is no " +
                         (path_.empty() ? name : path_ + "." + name) +
                         (near.empty() ? "" : "; did you mean " + near + "?"));
  }
}

}  // namespace tessera
