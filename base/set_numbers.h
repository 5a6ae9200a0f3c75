// Settings from code, where one plug-in chooses another (optim/outer.h, Encoding): numbers by the names that
// their fields have in a recipe.
#pragma once
#include <map>
#include <string>

#include "base/fields.h"

namespace tessera {

/// Sets fields that are numbers. That there is no such field, or that a value is out of bounds, is a bug.
void set_numbers(Settings& settings, const std::map<std::string, double>& values);

}  // namespace tessera
