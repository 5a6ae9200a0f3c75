#include "launch/simulate/axis.h"

#include <charconv>
#include <cmath>
#include <map>

#include "base/text.h"

namespace tessera {

Result<double> parse_quantity(const std::string& text) {
  static const std::map<std::string, double> units = {{"", 1},      {"k", 1e3},  {"K", 1e3},  {"M", 1e6},
                                                      {"G", 1e9},   {"B", 1e9},  {"T", 1e12}, {"s", 1},
                                                      {"ms", 1e-3}, {"us", 1e-6}};
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string unit(end, text.data() + text.size());
  for (const char* ending : {"/s", "bit"}) {
    if (unit.ends_with(ending)) unit.resize(unit.size() - std::string(ending).size());
  }
  const auto factor = units.find(unit);
  if (error != std::errc() || factor == units.end() || !std::isfinite(value))
    return fail(ExitCode::usage, "\"", text, "\" is no number with a unit (k, M, G, T; ms, us, s)");
  return value * factor->second;
}

Result<std::vector<double>> parse_axis(const std::string& what, const std::string& text, int points) {
  std::vector<double> values;
  for (const std::string& part : split(text, ',')) {
    const std::size_t dots = part.find("..");
    const bool range = dots != std::string::npos;
    const Result<double> first = parse_quantity(part.substr(0, dots));
    const Result<double> last = range ? parse_quantity(part.substr(dots + 2)) : first;
    for (const Result<double>* value : {&first, &last}) {
      if (!value->ok()) return fail(ExitCode::usage, what, ": ", value->error().message);
    }
    if (*first < 0) return fail(ExitCode::usage, what, ": ", part, " is negative");
    if (!range) {
      values.push_back(*first);
      continue;
    }
    if (*first <= 0 || *last < *first || points < 2)
      return fail(ExitCode::usage, what, ": a range ", part,
                  " goes from a number above 0 to a larger one, in at least 2 points");
    for (int i = 0; i < points; ++i)
      values.push_back(*first * std::pow(*last / *first, static_cast<double>(i) / (points - 1)));
  }
  return values;
}

std::string quantity_text(double value) {
  for (const auto& [factor, unit] : {std::pair{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}}) {
    if (value < factor) continue;
    char text[32];
    std::snprintf(text, sizeof text, "%.4g%s", value / factor, unit);
    return text;
  }
  return format_double(value);
}

}  // namespace tessera
