// The text log of a process: one line per event, to stderr and to a file of the run directory. spdlog stays
// in log.cpp.
#pragma once
#include <sstream>
#include <string>

namespace tessera {

enum class LogLevel { debug, info, warning, error };
struct LogOptions {
  std::string role = "tessera";  ///< shown in every line: "coordinator", "worker 2"
  std::string file;              ///< also written here; empty: stderr only
  LogLevel level = LogLevel::info;
  bool to_stderr = true;
};
/// Sets up the process's log. Without it, warnings and errors go to stderr.
void open_log(const LogOptions& options);
void write_log(LogLevel level, const std::string& text);

template <class... Parts>
void log(LogLevel level, const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  write_log(level, text.str());
}
template <class... Parts>
void log_debug(const Parts&... parts) {
  log(LogLevel::debug, parts...);
}
template <class... Parts>
void log_info(const Parts&... parts) {
  log(LogLevel::info, parts...);
}
template <class... Parts>
void log_warning(const Parts&... parts) {
  log(LogLevel::warning, parts...);
}
template <class... Parts>
void log_error(const Parts&... parts) {
  log(LogLevel::error, parts...);
}

}  // namespace tessera
