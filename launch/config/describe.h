// What can be set and chosen, in words: `tessera describe` and docs/config.md.
#pragma once
#include <string>

#include "base/error.h"
#include "launch/config/recipe.h"

namespace tessera {

/// `what` is "" (everything), a table ("sync"), a setting ("sync.steps"), or a kind of plug-in ("optimizer");
/// with a kind, `name` is "" or one of its plug-ins. Error{ExitCode::usage} names what is known.
Result<std::string> describe(const Catalogs& catalogs, const std::string& what = "",
                             const std::string& name = "");

/// docs/config.md.
std::string config_markdown(const Catalogs& catalogs);

}  // namespace tessera
