// Words for people: nearest known name, sizes, durations.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

/// The known name nearest to a mistyped one (Damerau-Levenshtein distance), or "" when none is near enough to
/// suggest.
std::string nearest_name(std::string_view typed, const std::vector<std::string>& known);

std::string join(const std::vector<std::string>& parts, std::string_view separator);
std::vector<std::string> split(std::string_view text, char separator);
std::string format_bytes(double bytes);       ///< 1536 -> "1.5 KiB"
std::string format_count(double count);       ///< 1234567 -> "1.23 M"
std::string format_duration(double seconds);  ///< 75 -> "1 min 15 s"
/// Shortest text that reads back as the same double ("0.7", "1e-08").
std::string format_double(double value);
/// Glob with *, ? and [abc]; * does not stop at dots.
bool glob_matches(std::string_view pattern, std::string_view text);

}  // namespace tessera
