// A recipe as TOML: every setting in a fixed order, so that equal recipes have equal text and one digest.
#pragma once
#include <string>
#include <vector>

#include "comm/hash.h"
#include "launch/config/recipe.h"

namespace tessera {

/// Canonical text: parse_recipe(write_recipe(r)) gives r, bit for bit. With help, each setting has its
/// comment.
std::string write_recipe(const Recipe& recipe, bool with_help = false);
/// xxh3-128 of the canonical text.
Digest recipe_digest(const Recipe& recipe);
/// What b says otherwise than a, one "sync.steps: 20 -> 10" per setting. For resuming and for refusing
/// workers.
std::vector<std::string> recipe_differences(const Recipe& a, const Recipe& b);

}  // namespace tessera
