// Checkpoints of a run directory: checkpoints/NNNNNNNN/{*.safetensors, manifest.json}, one folder per
// version, complete or not there at all. The manifest is written last and names size and xxh3-128 of every
// shard; its last member is the digest of its own bytes before that member, so every flipped byte of a
// checkpoint is noticed.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/tensor.h"
#include "comm/storage/file_system.h"

namespace tessera {

/// Whose checkpoint it is: another run's, or one of another model, is refused by name.
struct CheckpointIdentity {
  JobId job;
  Digest model;  ///< of what must be equal for the tensors to make sense: the family's settings and parameter
                 ///< specs
  auto operator<=>(const CheckpointIdentity&) const = default;
};

/// Tensors (job, model and version are put into the file's metadata), or bytes that are a safetensors file
/// already.
using Shard = std::variant<TensorMap, Buffer>;
/// Keyed by file name without ".safetensors": [a-z0-9._-]{1,128}, no leading dot.
using Shards = std::map<std::string, Shard>;

struct Checkpoint {
  Version version;
  std::string extra;                     ///< JSON object that the writer added to the manifest
  std::map<std::string, Buffer> shards;  ///< verified bytes by shard name
  /// The tensors of a shard; an Error names the shard when there is none of that name.
  Result<TensorMap> tensors(const std::string& shard) const;
};

class CheckpointStore {
 public:
  /// `folder` is RUN/checkpoints.
  CheckpointStore(Path folder, CheckpointIdentity identity, FileSystem& files = disk());

  /// Writes all of a checkpoint into a tmp folder and renames it. Writing a version again with equal shards
  /// does nothing; with other shards it is refused, except in place of a damaged one. A failed write leaves
  /// the older checkpoints and no tmp.
  Status write(Version version, const Shards& shards, const std::string& extra_json, Durability durability);

  /// All of one version, every byte verified. The Error names file and reason: cut short, bytes changed,
  /// missing, of another run or model.
  Result<Checkpoint> load(Version version) const;

  struct Newest {
    std::optional<Checkpoint> checkpoint;  ///< none: there is no usable one
    std::vector<std::string> skipped;      ///< newer ones, and why not
  };
  Newest newest_complete() const;

  /// Versions that have a folder, ascending, complete or not.
  Result<std::vector<Version>> versions() const;

  /// Deletes all but the newest `count` versions (manifest first), but never the newest that loads, which it
  /// reads for that; and what crashes left behind.
  Status keep_newest(std::size_t count);

 private:
  struct Manifest;
  Path folder_of(Version version) const;
  Result<Manifest> read_manifest(Version version) const;
  Result<Buffer> read_shard(Version version, const Manifest& manifest, const std::string& name) const;
  Status write_into(const Path& tmp, Version version, const Shards& shards, const Manifest& manifest,
                    Durability) const;
  Status make_way(Version version, const Manifest& manifest, bool& already_there);
  Status remove_version(Version version);

  Path folder_;
  CheckpointIdentity identity_;
  FileSystem* files_;
};

/// Shard names as above, also checked for what a manifest says.
bool is_shard_name(std::string_view name);

}  // namespace tessera
