// What a finished run directory says, as the result of a unit.
#pragma once
#include <string>

#include "launch/reproduce/runner.h"

namespace tessera {

/// Held-out score of the last parameters, as `tessera eval --json` prints it.
struct FinalScore {
  double loss = 0, tokens = 0, bits_per_byte = 0;
};
/// `text` may have other lines before the JSON.
Result<FinalScore> parse_final_score(const std::string& text);

/// Curve, bytes and hashes of the run whose rows stand in `metrics_file`; the caller fills in score, times
/// and place. `alone`: nothing is exchanged. Error: rows are missing, or the run consumed another number of
/// tokens than its recipe says.
Result<UnitResult> measure_run(const UnitJob& job, bool alone, const std::string& metrics_file);

}  // namespace tessera
