// `tessera inspect`: what lies in a run directory, a checkpoint or a tensor file. Opening verifies every
// checksum.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "comm/hash.h"
#include "launch/commands.h"
#include "launch/stored.h"

namespace tessera {
namespace {

using Json = nlohmann::ordered_json;

Json rounds_json(const std::vector<CommittedRound>& rounds) {
  Json list = Json::array();
  for (const CommittedRound& round : rounds) {
    Json row = {{"round", round.round}, {"loss", round.loss}, {"state_hash", round.state_hash}};
    if (round.eval_loss) row["eval_loss"] = *round.eval_loss;
    list.push_back(std::move(row));
  }
  return list;
}

Json stored_json(const Stored& stored) {
  Json json = {{"path", stored.path}};
  if (stored.version)
    json["version"] = *stored.version, json["job"] = stored.job, json["model"] = stored.model;
  json["extra"] = Json::parse(stored.extra, nullptr, false);
  for (const auto& [shard, tensors] : stored.shards) {
    Json list = Json::array();
    for (const auto& [name, tensor] : tensors) {
      list.push_back({{"name", name},
                      {"dtype", safetensors_name(tensor.dtype)},
                      {"shape", tensor.shape},
                      {"norm", l2_norm(tensor)},
                      {"xxh3_128", tensor_digest(name, tensor).hex()}});
    }
    json["shards"][shard] = {
        {"bytes", stored.bytes.at(shard)}, {"state_digest", state_digest(tensors).hex()}, {"tensors", list}};
  }
  return json;
}

void print_rounds(const std::string& path, const std::vector<CommittedRound>& rounds,
                  const std::vector<std::int64_t>& checkpoints) {
  std::vector<std::string> names;
  for (const std::int64_t round : checkpoints) names.push_back(std::to_string(round));
  std::printf("Run %s: %zu committed rounds, checkpoints of rounds %s\n", path.c_str(), rounds.size(),
              names.empty() ? "(none)" : join(names, ", ").c_str());
  if (rounds.empty()) return;
  std::printf("\n%7s %9s %9s  %s\n", "round", "loss", "held-out", "state hash");
  for (const CommittedRound& round : rounds) {
    std::printf("%7lld %9.4f %9s  %s\n", static_cast<long long>(round.round), round.loss,
                round.eval_loss ? format_double(std::round(*round.eval_loss * 1e4) / 1e4).c_str() : "",
                round.state_hash.c_str());
  }
  std::printf("\n");
}

void print_stored(const Stored& stored) {
  std::size_t tensors = 0;
  std::uint64_t bytes = 0;
  for (const auto& [shard, map] : stored.shards) tensors += map.size(), bytes += stored.bytes.at(shard);
  std::printf("%s: %zu tensors in %zu %s, %s, all checksums good\n", stored.path.c_str(), tensors,
              stored.shards.size(), stored.shards.size() == 1 ? "file" : "files",
              format_bytes(static_cast<double>(bytes)).c_str());
  if (stored.version) {
    std::printf("version %lld of job %s, model %s\n", static_cast<long long>(*stored.version),
                stored.job.c_str(), stored.model.c_str());
  }
  if (stored.extra != "{}") std::printf("notes %s\n", stored.extra.c_str());
  for (const auto& [shard, map] : stored.shards) {
    std::printf("\n%s.safetensors  %s  state digest %s\n", shard.c_str(),
                format_bytes(static_cast<double>(stored.bytes.at(shard))).c_str(),
                state_digest(map).hex().c_str());
    for (const auto& [name, tensor] : map) {
      std::printf("  %-44s %-4s %-16s norm %-12.6g %s\n", name.c_str(), safetensors_name(tensor.dtype),
                  shape_text(tensor.shape).c_str(), l2_norm(tensor),
                  format_bytes(static_cast<double>(tensor.bytes().size())).c_str());
    }
  }
}

}  // namespace

int command_inspect(const InspectOptions& options) {
  const bool is_run = is_run_directory(options.path);
  std::vector<CommittedRound> rounds;
  std::vector<std::int64_t> checkpoints;
  if (is_run) {
    Result<std::vector<CommittedRound>> read = committed_rounds(options.path);
    Result<std::vector<std::int64_t>> listed = stored_rounds(options.path);
    if (!read.ok()) return report(read.error());
    if (!listed.ok()) return report(listed.error());
    rounds = std::move(*read);
    checkpoints = std::move(*listed);
  }
  if (is_run && !options.json) print_rounds(options.path, rounds, checkpoints);
  Json json = Json::object();
  if (is_run) json["rounds"] = rounds_json(rounds), json["checkpoints"] = checkpoints;
  if (!is_run || !checkpoints.empty()) {
    const Result<Stored> stored = open_stored(options.path, options.round);
    if (!stored.ok()) return report(stored.error());
    if (options.json) {
      json["stored"] = stored_json(*stored);
    } else {
      print_stored(*stored);
    }
  }
  if (options.json) std::printf("%s\n", json.dump(2).c_str());
  return 0;
}

}  // namespace tessera
