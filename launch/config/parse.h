// From a recipe file and `--set` overrides to the tree of settings. All problems are found in one go, each
// with its place.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "launch/config/recipe.h"

namespace tessera {

/// The resolved recipe, or one Error (ExitCode::usage) whose message has a line per problem:
/// "recipe.toml:3:5: ...". `file` is the name that the lines start with. Overrides are "a.b=c" and win over
/// the text, later ones over earlier ones.
Result<Recipe> parse_recipe(std::string_view text, const std::string& file,
                            const std::vector<std::string>& overrides, const Catalogs& catalogs);

/// Reads the file first. An empty name stands for all defaults.
Result<Recipe> load_recipe(const std::string& file, const std::vector<std::string>& overrides,
                           const Catalogs& catalogs);

}  // namespace tessera
