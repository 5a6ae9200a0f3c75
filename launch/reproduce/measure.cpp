#include "launch/reproduce/measure.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

namespace tessera {
namespace {

using Json = nlohmann::json;

double number_at(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() && found->is_number() ? found->get<double>() : 0.0;
}

UnitResult computed_part(const UnitJob& job, bool alone) {
  const ResolvedUnit& resolved = job.resolved;
  const double rounds = static_cast<double>(resolved.rounds) * resolved.share;
  UnitResult result;
  result.unit = job.unit;
  result.recipe = resolved.recipe;
  result.recipe_hash = recipe_hash_of(resolved.recipe);
  result.tokens = resolved.merged_tokens();
  result.flops = resolved.flops();
  result.static_bytes = resolved.static_bytes();
  result.step_peak_bytes = resolved.step_peak_bytes();
  result.trained_parameters = resolved.trained_parameters();
  result.bytes_up = alone ? 0 : rounds * resolved.cost.total.bytes_up;
  result.bytes_down = alone ? 0 : rounds * resolved.cost.total.bytes_down;
  return result;
}

}  // namespace

Result<FinalScore> parse_final_score(const std::string& text) {
  const std::size_t begin = text.find('{');
  const Json json = begin == std::string::npos ? Json() : Json::parse(text.substr(begin), nullptr, false);
  if (!json.is_object() || !json.contains("model"))
    return fail(ExitCode::failed, "tessera eval did not print a score: ", text.substr(0, 500));
  // A diverged model's loss is null; taken for 0 it would be the best of its grid.
  const auto score = [&model = json["model"]](const char* name) {
    const auto found = model.find(name);
    return found != model.end() && found->is_number() ? found->get<double>() : std::nan("");
  };
  return FinalScore{score("loss"), score("units"), score("bits_per_byte")};
}

Result<UnitResult> measure_run(const UnitJob& job, bool alone, const std::string& metrics_file) {
  UnitResult result = computed_part(job, alone);
  const CostReport& cost = job.resolved.cost;
  std::ifstream rows(metrics_file);
  double tokens = 0, since = 0, loss_since = 0;
  std::int64_t round = 0;
  for (std::string line; std::getline(rows, line);) {
    const Json row = Json::parse(line, nullptr, false);
    const bool further_fragment = number_at(row, "fragment") > 0;  // of the same round
    if (!row.is_object() ||
        static_cast<std::int64_t>(number_at(row, "round")) != round + (further_fragment ? 0 : 1))
      return fail(ExitCode::failed, metrics_file, " has no good row for round ", round + 1);
    if (!further_fragment) ++round;
    const double units = number_at(row, "units");
    tokens += units;
    since += units;
    loss_since += units * number_at(row, "loss");
    result.measured_up += number_at(row, "bytes_up");
    result.measured_down += number_at(row, "bytes_down");
    const Json seconds = row.value("seconds", Json::object());
    result.compute_seconds += number_at(seconds, "compute") * number_at(row, "contributions");
    result.state_hash = row.value("state_hash", "");
    if (!row.contains("eval_loss")) continue;
    const double rounds = static_cast<double>(round) * job.resolved.share;
    result.curve.push_back(
        {.round = round,
         .tokens = tokens,
         .flops = rounds * cost.total.flops,
         .bytes = alone ? 0 : rounds * cost.total.bytes(),
         .train_loss = loss_since / since,
         .eval_loss = row["eval_loss"].is_number() ? row["eval_loss"].get<double>() : std::nan("")});
    since = loss_since = 0;
  }
  if (round != job.resolved.rounds)
    return fail(ExitCode::failed, metrics_file, " has ", round, " of ", job.resolved.rounds, " rounds");
  if (std::abs(tokens - result.tokens) > 1e-9 * tokens)
    return fail(ExitCode::failed, "the run consumed ", tokens, " tokens, but its recipe means ",
                result.tokens);
  return result;
}

}  // namespace tessera
