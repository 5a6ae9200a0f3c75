#include "launch/progress.h"

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace tessera {

std::optional<RoundRow> parse_round_row(const std::string& line) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("round")) return std::nullopt;
  auto number = [&](const char* name) {
    return json.contains(name) && json[name].is_number() ? json[name].get<double>() : 0.0;
  };
  RoundRow row;
  row.round = static_cast<std::int64_t>(number("round"));
  row.fragment = static_cast<std::int64_t>(number("fragment"));
  row.units = number("units");
  row.loss = number("loss");
  if (json.contains("eval_loss") && json["eval_loss"].is_number()) row.eval_loss = number("eval_loss");
  row.flops = number("flops");
  row.flops_saved = number("flops_saved");
  row.bytes_up = number("bytes_up");
  row.bytes_down = number("bytes_down");
  if (json.contains("seconds") && json["seconds"].is_object()) {
    for (const auto& step : json["seconds"].value("step_by_slot", nlohmann::json::array()))
      row.step_seconds.push_back(step.is_number() ? step.get<double>() : 0.0);
  }
  row.state_hash = json.value("state_hash", "");
  return row;
}

std::optional<RoundRow> MetricsTail::next() {
  std::ifstream file(path_, std::ios::binary | std::ios::ate);
  if (!file) return std::nullopt;
  if (file.tellg() < offset_) offset_ = 0;  // written anew: from its beginning, passing over what was seen
  file.seekg(offset_);
  for (std::string line; std::getline(file, line) && !file.eof();) {
    offset_ = file.tellg();
    const std::optional<RoundRow> row = parse_round_row(line);
    if (!row || std::pair(row->round, row->fragment) <= seen_) continue;
    seen_ = {row->round, row->fragment};
    return row;
  }
  return std::nullopt;
}

std::vector<RoundRow> read_rows(const std::string& path) {
  std::vector<RoundRow> rows;
  MetricsTail tail(path);
  while (auto row = tail.next()) rows.push_back(*row);
  return rows;
}

ProgressPrinter::ProgressPrinter(std::int64_t rounds, std::string unit, bool quiet,
                                 const std::vector<RoundRow>& before)
    : rounds_(rounds), unit_(std::move(unit)), quiet_(quiet) {
  for (const RoundRow& row : before) {
    units_ += row.units;
    bytes_ += row.bytes_up + row.bytes_down;
    first_round_ = row.round;
  }
}

void ProgressPrinter::print_header() {
  std::printf("%11s %10s %9s %9s %10s %10s %13s\n", "round", unit_.c_str(), "loss", "held-out",
              (unit_ + "/s").c_str(), "bytes", "time left");
  printed_header_ = true;
}

void ProgressPrinter::print(const RoundRow& row, Instant now) {
  units_ += row.units;
  bytes_ += row.bytes_up + row.bytes_down;
  if (quiet_) return;
  if (!printed_header_) print_header();
  const auto done = static_cast<double>(row.round - first_round_),
             ahead = static_cast<double>(rounds_ - row.round);
  const double left = seconds(now - begin_) / done * ahead;
  const std::string position = std::to_string(row.round) + "/" + std::to_string(rounds_);
  char eval[16] = "";
  if (row.eval_loss) std::snprintf(eval, sizeof eval, "%.4f", *row.eval_loss);
  std::printf("%11s %10s %9.4f %9s %10s %10s %13s\n", position.c_str(), format_count(units_).c_str(),
              row.loss, eval, format_count(row.units / seconds(now - last_)).c_str(),
              format_bytes(bytes_).c_str(), format_duration(left).c_str());
  std::fflush(stdout);
  last_ = now;
}

}  // namespace tessera
