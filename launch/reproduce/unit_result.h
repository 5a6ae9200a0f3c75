// What a unit leaves for good: results/NAME.json, committed. Everything that the report needs, so that table,
// plots and verdicts can be made again without running anything.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "launch/reproduce/units.h"

namespace tessera {

/// The run at one of its evaluations. Operations and bytes are those of the cost model, over all slots.
struct CurvePoint {
  std::int64_t round = 0;
  double tokens = 0, flops = 0, bytes = 0;
  double train_loss = 0;  ///< mean since the point before
  double eval_loss = 0;   ///< of the merged parameters, on eval.batches held-out batches
};

struct UnitResult {
  Unit unit;
  std::map<std::string, std::string> recipe;  ///< every setting that can change the result, resolved, as TOML
  std::string recipe_hash;                    ///< xxh3-128 of it, recipe_hash_of()
  std::string commit, build, machine, date;   ///< where it was made
  std::string corpus_hash;                    ///< xxh3-128 of the text
  double wall_seconds = 0, cpu_seconds = 0;   ///< of the training process, start and evaluations included
  double compute_seconds = 0;                 ///< in the slots' steps, summed over slots and rounds
  double peak_bytes = 0;                      ///< largest resident set of any of its processes
  double tokens = 0;
  double flops = 0, static_bytes = 0;   ///< cost model: of the whole run; of the largest slot
  double step_peak_bytes = 0;           ///< cost model: tensors of a step of the largest slot at their peak
  double bytes_up = 0, bytes_down = 0;  ///< cost model: of the whole run, all slots
  double measured_up = 0, measured_down = 0;   ///< as the transport counted them
  double trained_parameters = 0;               ///< mean over slots
  double final_loss = 0;                       ///< nats per token of the last parameters on held-out text
  double final_tokens = 0, bits_per_byte = 0;  ///< how much of it
  std::string state_hash;                      ///< of the last round
  std::vector<CurvePoint> curve;
};

/// xxh3-128 over "name = value\n" in order of names.
std::string recipe_hash_of(const std::map<std::string, std::string>& recipe);

std::string json_of(const UnitResult& result);
/// Error (storage): not such a file, or its recipe does not have the hash that it says.
Result<UnitResult> parse_unit_result(const std::string& text, const std::string& path);

/// FOLDER/NAME.json, whole or not at all.
Status write_unit_result(const UnitResult& result, const std::string& folder);
Result<UnitResult> read_unit_result(const std::string& path);

/// Why a result does not stand for a recipe any more: "outer.lr: 0.7 -> 0.4"; empty when it does. `said` are
/// the settings that the unit's files give: one that the result does not know and nobody gives came into the
/// world later, with a default under which nothing changed.
std::vector<std::string> differences(const std::map<std::string, std::string>& stored,
                                     const std::map<std::string, std::string>& now, const Said& said);

}  // namespace tessera
