// What `tessera simulate` understands as a list of values on its command line: numbers with units, lists and
// ranges ("10M,50M,200M", "1M..1T").
#pragma once
#include <string>
#include <vector>

#include "base/error.h"

namespace tessera {

/// "50M" -> 5e7, "10ms" -> 0.01, "1.5Gbit" -> 1.5e9. Units: k M G T (powers of 1000; B as in billion), ms us
/// s; "bit" and "bit/s" may follow.
Result<double> parse_quantity(const std::string& text);

/// A list with commas; "a..b" is `points` values from a to b with equal ratios, both included. None may be
/// negative, a range's ends must be above 0. `what` names the list in the sentence of an error.
Result<std::vector<double>> parse_axis(const std::string& what, const std::string& text, int points);

/// 5e7 -> "50M", 1e12 -> "1T".
std::string quantity_text(double value);

}  // namespace tessera
