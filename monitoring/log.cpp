#include "monitoring/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include <memory>
#include <mutex>
#include <vector>

namespace tessera {
namespace {

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

// One event is one line, whatever a peer or a file put into the text: control characters are shown, not
// obeyed.
std::string on_one_line(const std::string& text) {
  static constexpr char hex[] = "0123456789abcdef";
  std::string line;
  line.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      line += "\\n";
    } else if (c == '\t') {
      line += ' ';
    } else if (byte < 0x20 || byte == 0x7f) {
      line += {'\\', 'x', hex[byte >> 4], hex[byte & 15]};
    } else {
      line += c;
    }
  }
  return line;
}

std::shared_ptr<spdlog::logger> make_logger(const LogOptions& options) {
  std::vector<spdlog::sink_ptr> sinks;
  if (options.to_stderr) sinks.push_back(std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  std::string trouble;
  if (!options.file.empty()) {
    try {
      sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file));
    } catch (const spdlog::spdlog_ex& error) {
      trouble = std::string("the log goes to stderr alone: ") + error.what();
      if (!options.to_stderr) sinks.push_back(std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    }
  }
  auto logger = std::make_shared<spdlog::logger>(options.role, sinks.begin(), sinks.end());
  logger->set_level(spdlog_level(options.level));
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%-7l%$ [%n] %v");
  logger->flush_on(spdlog::level::debug);  // lines outlive a kill -9
  if (!trouble.empty()) logger->warn("{}", on_one_line(trouble));
  return logger;
}

// The text log is the process's, as stderr is: the one piece of process-wide state that the project keeps.
struct ProcessLog {
  std::mutex mutex;
  std::shared_ptr<spdlog::logger> logger;  // guarded by mutex

  std::shared_ptr<spdlog::logger> get() {
    const std::lock_guard lock(mutex);
    if (!logger) logger = make_logger({"tessera", "", LogLevel::warning, true});
    return logger;
  }
};
ProcessLog& process_log() {
  static ProcessLog log;
  return log;
}

}  // namespace

void open_log(const LogOptions& options) {
  auto logger = make_logger(options);
  const std::lock_guard lock(process_log().mutex);
  process_log().logger = std::move(logger);
}

void write_log(LogLevel level, const std::string& text) {
  const auto logger = process_log().get();
  if (logger->should_log(spdlog_level(level))) logger->log(spdlog_level(level), "{}", on_one_line(text));
}

}  // namespace tessera
