// One line per committed round, read from the run directory's metrics.jsonl as it grows.
#pragma once
#include <cstdint>
#include <ios>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace tessera {

/// What a line of metrics.jsonl says.
struct RoundRow {
  std::int64_t round = 0;
  std::int64_t fragment = 0;        ///< methods with several write a row of each
  double units = 0;                 ///< consumed in this round
  double loss = 0;                  ///< mean training loss, nats per unit
  std::optional<double> eval_loss;  ///< of the outer parameters, when evaluated
  double flops = 0;                 ///< of all slots' steps, by the formula
  double flops_saved = 0;           ///< share of what they would have been without the cut
  double bytes_up = 0, bytes_down = 0;
  std::vector<double> step_seconds;  ///< of each slot's inner steps; empty where nobody was there to measure
  std::string state_hash;
};
std::optional<RoundRow> parse_round_row(const std::string& line);

/// Follows a metrics.jsonl that grows, and that a restarted coordinator may write anew.
class MetricsTail {
 public:
  /// Rows up to and including the last of `before` are passed over.
  explicit MetricsTail(std::string path, const std::vector<RoundRow>& before = {}) : path_(std::move(path)) {
    if (!before.empty()) seen_ = {before.back().round, before.back().fragment};
  }
  /// The next complete row that was not seen yet, if there is one.
  std::optional<RoundRow> next();

 private:
  std::string path_;
  std::pair<std::int64_t, std::int64_t> seen_{-1, 0};  ///< round and fragment
  std::streamoff offset_ = 0;
};
/// All rows of a metrics.jsonl, in order; none when there is no such file.
std::vector<RoundRow> read_rows(const std::string& path);

/// Prints rows with rates and the time left.
class ProgressPrinter {
 public:
  /// `before`: rows of an earlier part of a resumed run, which count towards the totals.
  ProgressPrinter(std::int64_t rounds, std::string unit, bool quiet,
                  const std::vector<RoundRow>& before = {});
  void begin(Instant now) { begin_ = last_ = now; }
  void print(const RoundRow& row, Instant now);

 private:
  void print_header();

  std::int64_t rounds_;
  std::string unit_;
  bool quiet_;
  bool printed_header_ = false;
  double units_ = 0, bytes_ = 0;
  std::int64_t first_round_ = 0;  ///< the last round that was there before
  Instant begin_{}, last_{};
};

}  // namespace tessera
