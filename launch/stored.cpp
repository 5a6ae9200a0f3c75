#include "launch/stored.h"

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "comm/storage/checkpoint_store.h"
#include "comm/storage/files.h"
#include "comm/storage/safetensors.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

Result<Stored> open_file(const std::string& path) {
  TESSERA_ASSIGN(Buffer buffer, read_file(path));
  Stored stored{.path = path};
  const std::string shard = fs::path(path).stem().string();
  stored.bytes[shard] = buffer.bytes.size();
  TESSERA_ASSIGN(SafetensorsFile file, decode_safetensors(std::move(buffer), path));
  stored.shards[shard] = std::move(file.tensors);
  return stored;
}

/// Whose checkpoint it is, by its own word: the store then verifies everything else against it.
Result<Stored> named_by_manifest(const fs::path& folder) {
  TESSERA_ASSIGN(const Buffer manifest, read_file(folder / "manifest.json", std::uint64_t{1} << 24));
  const char* text = reinterpret_cast<const char*>(manifest.bytes.data());
  const nlohmann::json json = nlohmann::json::parse(text, text + manifest.bytes.size(), nullptr, false);
  if (!json.is_object() || !json.contains("version") || !json["version"].is_number_integer()) {
    return fail(ExitCode::storage, (folder / "manifest.json").string(),
                " is damaged: not the JSON of a checkpoint");
  }
  Stored stored{.path = folder.string(), .version = json["version"].get<std::int64_t>()};
  for (const auto& [key, value] : {std::pair{"job", &stored.job}, std::pair{"model", &stored.model}}) {
    if (json.contains(key) && json[key].is_string()) *value = json[key].get<std::string>();
  }
  return stored;
}

Result<Stored> open_checkpoint(const fs::path& folder) {
  TESSERA_ASSIGN(Stored stored, named_by_manifest(folder));
  const std::optional<Digest> job = Digest::from_hex(stored.job), model = Digest::from_hex(stored.model);
  if (!job || !model)
    return fail(ExitCode::storage, (folder / "manifest.json").string(),
                " is damaged: no digest of job or model");
  const CheckpointStore store(folder.parent_path(), {.job = *job, .model = *model});
  TESSERA_ASSIGN(const Checkpoint checkpoint, store.load(Version{*stored.version}));
  stored.extra = checkpoint.extra;
  for (const auto& [name, bytes] : checkpoint.shards) {
    stored.bytes[name] = bytes.bytes.size();
    TESSERA_ASSIGN(stored.shards[name], checkpoint.tensors(name));
  }
  return stored;
}

double half_to_double(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = bits >> 15 ? -1 : 1;
  if (exponent == 31) return fraction ? std::nan("") : sign * HUGE_VAL;
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

}  // namespace

bool is_run_directory(const std::string& path) {
  return fs::is_directory(path) && (fs::exists(path + "/checkpoints") || fs::exists(path + "/metrics.jsonl"));
}

Result<std::vector<std::int64_t>> stored_rounds(const std::string& run) {
  std::vector<std::int64_t> rounds;
  const fs::path folder = fs::path(run) / "checkpoints";
  if (!fs::exists(folder)) return rounds;
  TESSERA_ASSIGN(const std::vector<Version> versions, CheckpointStore(folder, {}).versions());
  for (const Version version : versions) rounds.push_back(version.value);
  return rounds;
}

Result<Stored> open_stored(const std::string& path, std::optional<std::int64_t> round) {
  if (!fs::exists(path)) return fail(ExitCode::usage, "there is no ", path);
  if (!fs::is_directory(path)) return open_file(path);
  if (fs::exists(fs::path(path) / "manifest.json")) {
    const fs::path folder = fs::absolute(path).lexically_normal();
    return open_checkpoint(folder.has_filename() ? folder : folder.parent_path());
  }
  if (!is_run_directory(path)) {
    return fail(ExitCode::usage, path,
                " is neither a run directory, nor a checkpoint folder, nor a .safetensors file");
  }
  TESSERA_ASSIGN(std::vector<std::int64_t> rounds, stored_rounds(path));
  if (rounds.empty()) return fail(ExitCode::usage, path, " has no checkpoint yet");
  const std::int64_t wanted = round.value_or(rounds.back());
  char name[32];
  std::snprintf(name, sizeof name, "%08lld", static_cast<long long>(wanted));
  const fs::path folder = fs::path(path) / "checkpoints" / name;
  if (fs::exists(folder)) return open_checkpoint(folder);
  std::vector<std::string> known;
  for (const std::int64_t each : rounds) known.push_back(std::to_string(each));
  return fail(ExitCode::usage, path, " has no checkpoint of round ", wanted,
              " (there are: ", join(known, ", "), ")");
}

Result<std::vector<CommittedRound>> committed_rounds(const std::string& run) {
  const std::string path = run + "/metrics.jsonl";
  std::ifstream in(path);
  std::vector<CommittedRound> rounds;
  std::int64_t line_number = 0;
  for (std::string line; std::getline(in, line);) {
    ++line_number;
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("round")) {
      if (in.eof()) break;  // the last line is still being written
      return fail(ExitCode::storage, path, ":", line_number, ": not a JSON object with a round");
    }
    try {
      CommittedRound row{.round = json.at("round"),
                         .loss = json.value("loss", std::nan("")),
                         .state_hash = json.value("state_hash", "")};
      if (json.contains("eval_loss") && json["eval_loss"].is_number())
        row.eval_loss = json["eval_loss"].get<double>();
      rounds.push_back(row);
    } catch (const nlohmann::json::exception&) {
      return fail(ExitCode::storage, path, ":", line_number, ": a member has the wrong type");
    }
  }
  return rounds;
}

double element(const HostTensor& tensor, std::int64_t index) {
  const std::byte* at = tensor.bytes().data() + static_cast<std::size_t>(index) * size_of(tensor.dtype);
  auto read = [at]<class T>(T value) {
    std::memcpy(&value, at, sizeof value);
    return value;
  };
  switch (tensor.dtype) {
    case DType::f32:
      return read(float{});
    case DType::f64:
      return read(double{});
    case DType::bf16:
      return std::bit_cast<float>(static_cast<std::uint32_t>(read(std::uint16_t{})) << 16);
    case DType::f16:
      return half_to_double(read(std::uint16_t{}));
    case DType::i64:
      return static_cast<double>(read(std::int64_t{}));
    case DType::i32:
      return read(std::int32_t{});
    case DType::u8:
      return read(std::uint8_t{});
  }
  return 0;
}

double l2_norm(const HostTensor& tensor) {
  double sum = 0;
  for (std::int64_t i = 0; i < tensor.elements(); ++i) sum += element(tensor, i) * element(tensor, i);
  return std::sqrt(sum);
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::vector<std::string> parts;
  for (const std::int64_t size : shape) parts.push_back(std::to_string(size));
  return "[" + join(parts, ", ") + "]";
}

}  // namespace tessera
