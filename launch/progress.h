// One line per committed round, read from the run directory's metrics.jsonl as it grows.
#pragma once
#include <cstdint>
#include <fstream>
#include <optional>
#include <string>

#include "base/clock.h"

namespace tessera {

/// What a line of metrics.jsonl says.
struct RoundRow {
  std::int64_t round = 0;
  double units = 0;                   ///< consumed in this round
  double loss = 0;                    ///< mean training loss, nats per unit
  std::optional<double> eval_loss;    ///< of the outer parameters, when evaluated
  double bytes_up = 0, bytes_down = 0;
  double seconds = 0;                 ///< wall-clock of the round
  std::string state_hash;
};
std::optional<RoundRow> parse_round_row(const std::string& line);

/// Follows a metrics.jsonl from its present end or its beginning.
class MetricsTail {
 public:
  explicit MetricsTail(std::string path) : path_(std::move(path)) {}
  /// The next complete row, if there is one.
  std::optional<RoundRow> next();

 private:
  std::string path_;
  std::ifstream file_;
  std::string partial_;
};

/// Prints rows with rates and the time left.
class ProgressPrinter {
 public:
  ProgressPrinter(std::int64_t rounds, std::string unit, bool quiet);
  void print(const RoundRow& row, Instant now);
  double units() const { return units_; }

 private:
  std::int64_t rounds_;
  std::string unit_;
  bool quiet_;
  bool printed_header_ = false;
  double units_ = 0, bytes_ = 0;
  std::int64_t first_round_ = 0;
  Instant begin_{}, last_{};
};

}  // namespace tessera
