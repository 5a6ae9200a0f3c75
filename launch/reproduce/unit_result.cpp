#include "launch/reproduce/unit_result.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "comm/hash.h"
#include "comm/storage/files.h"

namespace tessera {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFormat = 1;

Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);  // JSON has no NaN
}

double number_of(const Json& json) {
  return json.is_number() ? json.get<double>() : std::nan("");
}

Json column(const std::vector<CurvePoint>& curve, double CurvePoint::*member) {
  Json values = Json::array();
  for (const CurvePoint& point : curve) values.push_back(number(point.*member));
  return values;
}

/// The numbers of a result by their name in the file.
const std::vector<std::pair<const char*, double UnitResult::*>>& numbers() {
  static const std::vector<std::pair<const char*, double UnitResult::*>> all{
      {"final_loss", &UnitResult::final_loss},
      {"final_tokens", &UnitResult::final_tokens},
      {"bits_per_byte", &UnitResult::bits_per_byte},
      {"tokens", &UnitResult::tokens},
      {"flops", &UnitResult::flops},
      {"static_bytes", &UnitResult::static_bytes},
      {"step_peak_bytes", &UnitResult::step_peak_bytes},
      {"trained_parameters", &UnitResult::trained_parameters},
      {"bytes_up", &UnitResult::bytes_up},
      {"bytes_down", &UnitResult::bytes_down},
      {"measured_up", &UnitResult::measured_up},
      {"measured_down", &UnitResult::measured_down},
      {"wall_seconds", &UnitResult::wall_seconds},
      {"cpu_seconds", &UnitResult::cpu_seconds},
      {"compute_seconds", &UnitResult::compute_seconds},
      {"peak_bytes", &UnitResult::peak_bytes}};
  return all;
}

const std::vector<std::pair<const char*, double CurvePoint::*>>& columns() {
  static const std::vector<std::pair<const char*, double CurvePoint::*>> all{
      {"tokens", &CurvePoint::tokens},
      {"flops", &CurvePoint::flops},
      {"bytes", &CurvePoint::bytes},
      {"train_loss", &CurvePoint::train_loss},
      {"eval_loss", &CurvePoint::eval_loss}};
  return all;
}

const std::vector<std::pair<const char*, std::string UnitResult::*>>& texts() {
  static const std::vector<std::pair<const char*, std::string UnitResult::*>> all{
      {"recipe_hash", &UnitResult::recipe_hash},
      {"commit", &UnitResult::commit},
      {"build", &UnitResult::build},
      {"machine", &UnitResult::machine},
      {"date", &UnitResult::date},
      {"corpus_hash", &UnitResult::corpus_hash},
      {"state_hash", &UnitResult::state_hash}};
  return all;
}

}  // namespace

std::string recipe_hash_of(const std::map<std::string, std::string>& recipe) {
  std::string text;
  for (const auto& [name, value] : recipe) text += name + " = " + value + "\n";
  return digest_of(text).hex();
}

std::string json_of(const UnitResult& result) {
  const Unit& unit = result.unit;
  Json json = {{"format", kFormat}, {"unit", unit.name},          {"arm", unit.arm},
               {"size", unit.size}, {"data", unit.corpus},        {"point", unit.point},
               {"seed", unit.seed}, {"processes", unit.processes}};
  for (const auto& [name, member] : texts()) json[name] = result.*member;
  for (const auto& [name, member] : numbers()) json[name] = number(result.*member);
  Json& curve = json["curve"];
  curve["round"] = Json::array();
  for (const CurvePoint& point : result.curve) curve["round"].push_back(point.round);
  for (const auto& [name, member] : columns()) curve[name] = column(result.curve, member);
  json["recipe"] = result.recipe;
  // A line per entry, not per number of the curves: files that people look at in a diff.
  std::string text = "{\n";
  for (auto entry = json.begin(); entry != json.end(); ++entry) {
    text += Json(entry.key()).dump() + ": " + entry.value().dump() +
            (std::next(entry) == json.end() ? "\n" : ",\n");
  }
  return text + "}\n";
}

Result<UnitResult> parse_unit_result(const std::string& text, const std::string& path) {
  UnitResult result;
  try {
    const Json json = Json::parse(text);
    if (json.at("format").get<int>() != kFormat)
      return fail(ExitCode::storage, path, " has format ", json.at("format").dump(), ", this build reads ",
                  kFormat);
    Unit& unit = result.unit;
    unit = {json.at("unit"),  json.at("arm"),  json.at("size"),     json.at("data"),
            json.at("point"), json.at("seed"), json.at("processes")};
    for (const auto& [name, member] : texts()) result.*member = json.at(name).get<std::string>();
    for (const auto& [name, member] : numbers()) result.*member = number_of(json.at(name));
    const Json& curve = json.at("curve");
    result.curve.resize(curve.at("round").size());
    for (std::size_t i = 0; i < result.curve.size(); ++i) {
      result.curve[i].round = curve.at("round")[i];
      for (const auto& [name, member] : columns()) result.curve[i].*member = number_of(curve.at(name).at(i));
    }
    result.recipe = json.at("recipe").get<std::map<std::string, std::string>>();
  } catch (const Json::exception& wrong) {
    return fail(ExitCode::storage, path, " is no result of a unit: ", wrong.what());
  }
  if (recipe_hash_of(result.recipe) != result.recipe_hash)
    return fail(ExitCode::storage, path,
                " was changed by hand: its recipe does not have the hash that it says");
  return result;
}

Status write_unit_result(const UnitResult& result, const std::string& folder) {
  TESSERA_TRY(make_folder(folder));
  return atomic_write(folder + "/" + result.unit.name + ".json", json_of(result), Durability::machine);
}

Result<UnitResult> read_unit_result(const std::string& path) {
  TESSERA_ASSIGN(const Buffer bytes, read_file(path, 1 << 24));
  return parse_unit_result({reinterpret_cast<const char*>(bytes.bytes.data()), bytes.bytes.size()}, path);
}

std::vector<std::string> differences(const std::map<std::string, std::string>& stored,
                                     const std::map<std::string, std::string>& now, const Said& said) {
  std::vector<std::string> found;
  for (const auto& [name, value] : stored) {
    const auto current = now.find(name);
    if (current == now.end()) {
      found.push_back(name + ": " + value + " -> (no such setting any more)");
    } else if (current->second != value) {
      found.push_back(name + ": " + value + " -> " + current->second);
    }
  }
  std::set<std::string> given;
  for (const auto& [name, value] : said) given.insert(name);
  for (const auto& [name, value] : now) {
    if (stored.count(name) == 0 && given.count(name) > 0)
      found.push_back(name + ": (unknown then) -> " + value);
  }
  return found;
}

}  // namespace tessera
