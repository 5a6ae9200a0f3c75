// What a run leaves on disk, opened for looking at it: every byte verified, nothing changed.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/tensor.h"

namespace tessera {

/// Tensors at rest, by shard (a checkpoint has several, a lone file one) and name.
struct Stored {
  std::string path;                       ///< checkpoint folder or file
  std::optional<std::int64_t> version{};  ///< of a checkpoint
  std::string job{}, model{};             ///< of a checkpoint: hex digests
  std::string extra = "{}";               ///< of a checkpoint: what its writer noted, a JSON object
  std::map<std::string, TensorMap> shards{};
  std::map<std::string, std::uint64_t> bytes{};  ///< of each shard's file
};

/// Opens a run directory (its newest complete checkpoint, or that of `round`), a checkpoint folder or a
/// .safetensors file.
Result<Stored> open_stored(const std::string& path, std::optional<std::int64_t> round = std::nullopt);

bool is_run_directory(const std::string& path);
/// Rounds of a run directory that have a checkpoint folder, ascending.
Result<std::vector<std::int64_t>> stored_rounds(const std::string& run);

/// One committed round, as metrics.jsonl tells it.
struct CommittedRound {
  std::int64_t round = 0;
  double loss = 0;
  std::optional<double> eval_loss{};
  std::string state_hash;
};
Result<std::vector<CommittedRound>> committed_rounds(const std::string& run);

/// Element `index` of any dtype as a number.
double element(const HostTensor& tensor, std::int64_t index);
double l2_norm(const HostTensor& tensor);
/// "[3, 128]"
std::string shape_text(const std::vector<std::int64_t>& shape);

}  // namespace tessera
