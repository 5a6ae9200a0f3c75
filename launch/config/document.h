// A recipe file as a tree of values that know where they stand. toml++ appears in document.cpp only.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/error.h"

namespace tessera {

/// Where something stands: line and column of the file, or the override that said it.
struct Place {
  std::int64_t line = 0, column = 0;  ///< from 1; 0: nowhere in particular
  std::int32_t override_number = -1;  ///< position in the list of overrides; -1: in the file
  std::string override_path{};        ///< "a.b"
  auto operator<=>(const Place&) const = default;
  /// "recipe.toml:3:5", "recipe.toml" or "--set a.b".
  std::string text(const std::string& file) const;
};

struct Value;
using Values = std::vector<Value>;
struct Value {
  /// monostate: something that no setting takes (a date, a table in a list); `written` names it.
  std::variant<std::monostate, bool, std::int64_t, double, std::string, Values> data;
  std::string written;  ///< of an override: its text as typed; else what it is, for people ("a date")
};

/// A table with its settings and tables, or a single value.
struct Node {
  Place key, place;  ///< of the name, and of the value
  bool is_table = false;
  bool from_override = false;
  Value value{};
  std::map<std::string, Node> children{};
};

/// Reads TOML. A syntax error is one sentence with its place.
Result<Node> read_document(std::string_view text, const std::string& file);

/// Lays "a.b=c" over the tree. c is read as TOML; what is not TOML counts as a bare word.
Status apply_override(Node& root, const std::string& assignment, std::int32_t number);

/// What a value is, for people: "the text 'abc'", "the number 3".
std::string describe_value(const Value& value);

}  // namespace tessera
