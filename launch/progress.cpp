#include "launch/progress.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace tessera {

std::optional<RoundRow> parse_round_row(const std::string& line) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("round")) return std::nullopt;
  auto number = [&](const char* name) { return json.contains(name) && json[name].is_number() ? json[name].get<double>() : 0.0; };
  RoundRow row;
  row.round = static_cast<std::int64_t>(number("round"));
  row.units = number("units");
  row.loss = number("loss");
  if (json.contains("eval_loss") && json["eval_loss"].is_number()) row.eval_loss = number("eval_loss");
  row.bytes_up = number("bytes_up");
  row.bytes_down = number("bytes_down");
  row.state_hash = json.value("state_hash", "");
  return row;
}

std::optional<RoundRow> MetricsTail::next() {
  if (!file_.is_open()) file_.open(path_);
  if (!file_.is_open()) return std::nullopt;
  file_.clear();
  std::string piece;
  std::getline(file_, piece);
  partial_ += piece;
  if (file_.eof()) return std::nullopt;  // the line is not complete yet: keep what there is of it
  const std::string line = std::exchange(partial_, {});
  return parse_round_row(line);
}

ProgressPrinter::ProgressPrinter(std::int64_t rounds, std::string unit, bool quiet)
    : rounds_(rounds), unit_(std::move(unit)), quiet_(quiet) {}

void ProgressPrinter::print(const RoundRow& row, Instant now) {
  if (!printed_header_) {
    begin_ = last_ = now;
    first_round_ = row.round;
    if (!quiet_) {
      std::printf("%11s %12s %9s %9s %12s %12s %12s\n", "round", unit_.c_str(), "loss", "held-out", (unit_ + "/s").c_str(), "bytes",
                  "time left");
    }
    printed_header_ = true;
  }
  units_ += row.units;
  bytes_ += row.bytes_up + row.bytes_down;
  if (quiet_) return;
  const double since_last = seconds(now - last_), since_begin = seconds(now - begin_);
  const std::int64_t done = row.round - first_round_;
  const double left = done > 0 ? since_begin / static_cast<double>(done) * static_cast<double>(rounds_ - row.round) : 0;
  const std::string position = std::to_string(row.round) + "/" + std::to_string(rounds_);
  char eval[16] = "";
  if (row.eval_loss) std::snprintf(eval, sizeof eval, "%.4f", *row.eval_loss);
  std::printf("%11s %12s %9.4f %9s %12s %12s %12s\n", position.c_str(), format_count(units_).c_str(), row.loss, eval,
              since_last > 0 ? format_count(row.units / since_last).c_str() : "", format_bytes(bytes_).c_str(),
              done > 0 ? format_duration(left).c_str() : "");
  std::fflush(stdout);
  last_ = now;
}

}  // namespace tessera
