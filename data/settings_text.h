// All settings of a plug-in as "name=value" lines: what a key or digest is made over. Equal text means equal
// settings.
#pragma once
#include <string>

#include "base/fields.h"

namespace tessera {

std::string settings_text(Settings& settings);

}  // namespace tessera
