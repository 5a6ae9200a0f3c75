#include "launch/config/document.h"

#include <toml++/toml.h>

#include "base/text.h"

namespace tessera {
namespace {

Place place_of(const toml::source_region& source) {
  return {.line = static_cast<std::int64_t>(source.begin.line),
          .column = static_cast<std::int64_t>(source.begin.column)};
}

Value value_of(const toml::node& node) {
  if (const auto* flag = node.as_boolean()) return {flag->get(), {}};
  if (const auto* whole = node.as_integer()) return {whole->get(), {}};
  if (const auto* number = node.as_floating_point()) return {number->get(), {}};
  if (const auto* text = node.as_string()) return {text->get(), {}};
  if (const auto* list = node.as_array()) {
    Values values;
    for (const toml::node& element : *list) values.push_back(value_of(element));
    return {std::move(values), {}};
  }
  return {std::monostate{}, node.is_table() ? "a table" : "a date or time"};
}

Node node_of(const toml::node& node, const Place& key) {
  Node result;
  result.key = key;
  result.place = place_of(node.source());
  if (const toml::table* table = node.as_table()) {
    result.is_table = true;
    for (const auto& [name, child] : *table) {
      result.children.emplace(std::string(name.str()), node_of(child, place_of(name.source())));
    }
  } else {
    result.value = value_of(node);
  }
  return result;
}

}  // namespace

std::string Place::text(const std::string& file) const {
  if (override_number >= 0) return "--set " + override_path;
  if (line == 0) return file;
  return file + ":" + std::to_string(line) + ":" + std::to_string(column);
}

Result<Node> read_document(std::string_view text, const std::string& file) {
  try {
    return node_of(toml::parse(text), {});
  } catch (const toml::parse_error& error) {
    return fail(ExitCode::usage, place_of(error.source()).text(file),
                ": not valid TOML: ", error.description());
  }
}

Status apply_override(Node& root, const std::string& assignment, std::int32_t number) {
  const std::size_t equals = assignment.find('=');
  const std::string path = assignment.substr(0, equals);
  if (equals == std::string::npos || path.empty()) {
    return fail(ExitCode::usage, "--set ", assignment,
                ": wants setting=value, for example --set sync.steps=20");
  }
  const Place place{.override_number = number, .override_path = path};
  Node* node = &root;
  for (const std::string& name : split(path, '.')) {
    if (!node->is_table) *node = Node{.key = place, .place = place, .is_table = true};
    node = &node->children[name];
    if (node->key == Place{}) node->key = place;
  }
  const std::string written = assignment.substr(equals + 1);
  *node = Node{.key = place, .place = place, .from_override = true, .value = {written, written}};
  try {
    const toml::table parsed = toml::parse("value = " + written);
    if (parsed.size() == 1) node->value.data = value_of(*parsed.get("value")).data;
  } catch (const toml::parse_error&) {
    // A bare word such as gpt or /srv/text: stays the text that was typed.
  }
  return {};
}

std::string describe_value(const Value& value) {
  if (const auto* flag = std::get_if<bool>(&value.data)) return *flag ? "true" : "false";
  if (const auto* whole = std::get_if<std::int64_t>(&value.data)) return std::to_string(*whole);
  if (const auto* number = std::get_if<double>(&value.data)) return format_double(*number);
  if (const auto* text = std::get_if<std::string>(&value.data)) return "\"" + *text + "\"";
  if (std::holds_alternative<Values>(value.data)) return "a list";
  return value.written;
}

}  // namespace tessera
