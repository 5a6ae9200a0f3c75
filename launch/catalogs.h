// The plug-ins that are linked into this binary, as a recipe chooses from them.
#pragma once
#include "launch/config/recipe.h"

namespace tessera {

Catalogs builtin_catalogs();

}  // namespace tessera
