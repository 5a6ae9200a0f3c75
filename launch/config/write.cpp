#include "launch/config/write.h"

#include "launch/config/outline.h"

namespace tessera {

std::string write_recipe(const Recipe& recipe, bool with_help) {
  std::string text;
  // Visiting reads only; fields() is not const because the parser's visitor writes through it.
  for (const OutlineTable& table : outline_of(const_cast<Recipe&>(recipe))) {
    if (!table.path.empty()) text += (text.empty() ? "[" : "\n[") + table.path + "]\n";
    for (const OutlineField& field : table.fields) {
      text += field.name + " = " + field.value;
      if (with_help) text += "  # " + field.help + (field.bounds.empty() ? "" : " (" + field.bounds + ")");
      text += "\n";
    }
  }
  return text;
}

Digest recipe_digest(const Recipe& recipe) {
  return digest_of(write_recipe(recipe));
}

std::vector<std::string> recipe_differences(const Recipe& a, const Recipe& b) {
  const std::map<std::string, std::string> before = flat_values(a), after = flat_values(b);
  std::vector<std::string> differences;
  for (const auto& [path, value] : before) {
    auto found = after.find(path);
    if (found == after.end()) {
      differences.push_back(path + ": " + value + " -> (none)");
    } else if (found->second != value) {
      differences.push_back(path + ": " + value + " -> " + found->second);
    }
  }
  for (const auto& [path, value] : after) {
    if (before.count(path) == 0) differences.push_back(path + ": (none) -> " + value);
  }
  return differences;
}

}  // namespace tessera
