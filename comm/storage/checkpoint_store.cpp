#include "comm/storage/checkpoint_store.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "comm/hash.h"
#include "comm/storage/files.h"
#include "comm/storage/safetensors.h"

namespace tessera {
namespace {
using nlohmann::json;

constexpr const char* format_name = "tessera-checkpoint-1";
constexpr const char* manifest_name = "manifest.json";
constexpr std::string_view shard_suffix = ".safetensors";
constexpr std::uint64_t manifest_cap = std::uint64_t{16} << 20;
// The manifest ends in its own digest: everything before this is hashed.
constexpr std::string_view digest_open = ",\n \"xxh3_128\": \"";
constexpr std::string_view digest_close = "\"\n}\n";

std::string shard_file(const std::string& name) {
  return name + std::string(shard_suffix);
}

std::string sealed(const json& manifest) {
  std::string text = manifest.dump(1);
  text.resize(text.size() - 2);  // "\n}" comes after the digest
  return text + std::string(digest_open) + digest_of(text).hex() + std::string(digest_close);
}

/// Whether a manifest's bytes are those that were written, told without parsing them.
bool is_sealed(std::string_view text) {
  const std::size_t tail = digest_open.size() + 32 + digest_close.size();
  if (text.size() < tail) return false;
  const std::string_view body = text.substr(0, text.size() - tail);
  return text.substr(body.size()) ==
         std::string(digest_open) + digest_of(body).hex() + std::string(digest_close);
}

bool is_version_name(const std::string& name) {
  return name.size() >= 8 && name.size() <= 18 && name.find_first_not_of("0123456789") == std::string::npos;
}

}  // namespace

/// What manifest.json says, once it is verified.
struct CheckpointStore::Manifest {
  struct Listed {
    std::uint64_t size = 0;
    Digest digest;
    bool operator==(const Listed&) const = default;
  };
  std::map<std::string, Listed> shards;
  json extra = json::object();

  std::string text(Version version, const CheckpointIdentity& identity) const {
    json list = json::array();
    for (const auto& [name, shard] : shards) {
      list.push_back({{"name", name}, {"size", shard.size}, {"xxh3_128", shard.digest.hex()}});
    }
    return sealed({{"format", format_name},
                   {"version", version.value},
                   {"job", identity.job.hex()},
                   {"model", identity.model.hex()},
                   {"shards", list},
                   {"extra", extra}});
  }

  /// Throws json::exception where a member is missing or of another type.
  static Result<Manifest> from(const json& value, const Path& path) {
    Manifest manifest;
    manifest.extra = value.at("extra");
    for (const json& shard : value.at("shards")) {
      const std::string name = shard.at("name");
      const std::optional<Digest> digest = Digest::from_hex(shard.at("xxh3_128").get<std::string>());
      if (!is_shard_name(name) || !digest)
        return fail(ExitCode::storage, path.string(), ": a shard has no sane name or digest");
      const Listed listed{shard.at("size").get<std::uint64_t>(), *digest};
      if (!manifest.shards.emplace(name, listed).second)
        return fail(ExitCode::storage, path.string(), ": two shards ", name);
    }
    return manifest;
  }
};

bool is_shard_name(std::string_view name) {
  if (name.empty() || name.size() > 128 || name[0] == '.') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

Result<TensorMap> Checkpoint::tensors(const std::string& shard) const {
  const auto found = shards.find(shard);
  if (found == shards.end()) {
    return fail(ExitCode::storage, "checkpoint ", version, " has no shard ", shard_file(shard));
  }
  const std::string where = detail::describe("checkpoint ", version, ", ", shard_file(shard));
  TESSERA_ASSIGN(SafetensorsFile file, decode_safetensors(found->second, where));
  return std::move(file.tensors);
}

CheckpointStore::CheckpointStore(Path folder, CheckpointIdentity identity, FileSystem& files)
    : folder_(std::move(folder)), identity_(identity), files_(&files) {}

Path CheckpointStore::folder_of(Version version) const {
  char name[32];
  std::snprintf(name, sizeof name, "%08lld", static_cast<long long>(version.value));
  return folder_ / name;
}

Status CheckpointStore::write(Version version, const Shards& shards, const std::string& extra_json,
                              Durability durability) {
  TESSERA_CHECK_LE(0, version.value);
  Manifest manifest;
  manifest.extra = json::parse(extra_json.empty() ? "{}" : extra_json, nullptr, /*allow_exceptions=*/false);
  TESSERA_CHECK(manifest.extra.is_object(), ": extra is a JSON object, not ", extra_json);
  Shards encoded;
  for (const auto& [name, shard] : shards) {
    TESSERA_CHECK(is_shard_name(name), ": shard name '", name, "'");
    const auto* tensors = std::get_if<TensorMap>(&shard);
    const Buffer bytes = tensors == nullptr
                             ? std::get<Buffer>(shard)
                             : encode_safetensors(*tensors, {{"job", identity_.job.hex()},
                                                             {"model", identity_.model.hex()},
                                                             {"version", std::to_string(version.value)}});
    manifest.shards[name] = {bytes.bytes.size(), digest_of(Bytes(bytes.bytes))};
    encoded[name] = bytes;
  }
  TESSERA_TRY(files_->make_folder(folder_));
  bool already_there = false;
  TESSERA_TRY(make_way(version, manifest, already_there));
  if (already_there) return {};
  const Path tmp = tmp_name_for(folder_of(version));
  Status written = write_into(tmp, version, encoded, manifest, durability);
  if (written.ok()) written = files_->rename(tmp, folder_of(version));
  if (!written.ok()) {
    (void)remove_tree(tmp, *files_);  // the first failure is the one to tell
    return fail(ExitCode::storage, "checkpoint ", version,
                " was not written (older ones are as they were): ", written.error().message);
  }
  if (durability == Durability::machine) {
    TESSERA_TRY(files_->sync_folder(folder_));
    TESSERA_TRY(files_->sync_folder(folder_.parent_path()));  // the first checkpoint made folder_
  }
  return {};
}

Status CheckpointStore::write_into(const Path& tmp, Version version, const Shards& shards,
                                   const Manifest& manifest, Durability durability) const {
  TESSERA_TRY(files_->make_folder(tmp));
  for (const auto& [name, shard] : shards) {
    const Bytes bytes = std::get<Buffer>(shard).bytes;
    TESSERA_TRY(files_->write_new(tmp / shard_file(name), std::span(&bytes, 1), durability));
  }
  const std::string text = manifest.text(version, identity_);
  const Bytes bytes = std::as_bytes(std::span(text));
  TESSERA_TRY(files_->write_new(tmp / manifest_name, std::span(&bytes, 1), durability));
  return durability == Durability::machine ? files_->sync_folder(tmp) : Status();
}

Status CheckpointStore::make_way(Version version, const Manifest& manifest, bool& already_there) {
  const Path folder = folder_of(version);
  if (!files_->exists(folder)) return {};
  const Result<Manifest> old = read_manifest(version);
  if (!old.ok() && old.error().code == ExitCode::refused_recipe)
    return old.error();  // never destroy another run's
  if (old.ok() && load(version).ok()) {
    already_there = old->shards == manifest.shards;
    if (already_there) return {};
    return fail(ExitCode::storage, folder.string(), " already holds checkpoint ", version,
                " with other contents; checkpoints are never rewritten. Move it away to write this one");
  }
  return remove_version(version);
}

Result<CheckpointStore::Manifest> CheckpointStore::read_manifest(Version version) const {
  const Path path = folder_of(version) / manifest_name;
  TESSERA_TRY(files_->list_folder(folder_of(version)));  // a real folder, not a link to one
  if (!files_->exists(path))
    return fail(ExitCode::storage, path.string(), " is missing: the checkpoint is incomplete");
  TESSERA_ASSIGN(const Buffer file, files_->read_file(path, manifest_cap));
  const std::string_view text(reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size());
  if (!is_sealed(text)) {
    return fail(ExitCode::storage, path.string(),
                " is damaged: its checksum does not match (cut short, or bytes changed)");
  }
  try {
    const json value = json::parse(text);
    if (value.at("format") != format_name) {
      return fail(ExitCode::storage, path.string(), " is of format ", value.at("format"),
                  ", this build reads ", format_name);
    }
    if (value.at("version") != version.value) {
      return fail(ExitCode::storage, path.string(), " is of checkpoint ", value.at("version"),
                  ": the folder was renamed");
    }
    if (value.at("job") != identity_.job.hex()) {
      return fail(ExitCode::refused_recipe, path.string(), " is of another run: job ", value.at("job"),
                  ", this is ", identity_.job);
    }
    if (value.at("model") != identity_.model.hex()) {
      return fail(ExitCode::refused_recipe, path.string(), " is of another model: digest ", value.at("model"),
                  ", this is ", identity_.model);
    }
    return Manifest::from(value, path);
  } catch (const json::exception& error) {
    return fail(ExitCode::storage, path.string(), " is no manifest: ", error.what());
  }
}

Result<Buffer> CheckpointStore::read_shard(Version version, const Manifest& manifest,
                                           const std::string& name) const {
  const Path path = folder_of(version) / shard_file(name);
  const Manifest::Listed& listed = manifest.shards.at(name);
  if (!files_->exists(path))
    return fail(ExitCode::storage, path.string(), " is missing, the manifest lists it");
  // Room for telling whose a shard is that is a little longer; what is much longer is not read at all.
  constexpr std::uint64_t slack = std::uint64_t{16} << 20;
  TESSERA_ASSIGN(Buffer file, files_->read_file(path, listed.size + slack));
  if (digest_of(Bytes(file.bytes)) == listed.digest && file.bytes.size() == listed.size) return file;
  // Damaged. Say how, as far as its own metadata tell.
  const Result<SafetensorsFile> decoded = decode_safetensors(file, path.string());
  if (decoded.ok()) {
    for (const auto& [key, mine] : {std::pair<std::string, std::string>{"job", identity_.job.hex()},
                                    {"model", identity_.model.hex()},
                                    {"version", std::to_string(version.value)}}) {
      const auto found = decoded->metadata.find(key);
      if (found != decoded->metadata.end() && found->second != mine) {
        return fail(ExitCode::storage, path.string(), " is not this checkpoint's shard: its ", key, " is ",
                    found->second, ", this is ", mine);
      }
    }
  }
  if (file.bytes.size() != listed.size) {
    return fail(ExitCode::storage, path.string(),
                file.bytes.size() < listed.size ? " is cut short: " : " is too long: ", file.bytes.size(),
                " bytes, the manifest says ", listed.size);
  }
  return fail(ExitCode::storage, path.string(), " is damaged: its xxh3-128 is not the manifest's ",
              listed.digest);
}

Result<Checkpoint> CheckpointStore::load(Version version) const {
  if (!files_->exists(folder_of(version))) {
    return fail(ExitCode::storage, "there is no checkpoint ", version, " in ", folder_.string());
  }
  TESSERA_ASSIGN(const Manifest manifest, read_manifest(version));
  Checkpoint checkpoint{version, manifest.extra.dump(), {}};
  for (const auto& [name, listed] : manifest.shards) {
    TESSERA_ASSIGN(checkpoint.shards[name], read_shard(version, manifest, name));
  }
  return checkpoint;
}

CheckpointStore::Newest CheckpointStore::newest_complete() const {
  Newest newest;
  if (!files_->exists(folder_)) return newest;
  const Result<std::vector<Version>> found = versions();
  if (!found.ok()) {
    newest.skipped.push_back(found.error().message);
    return newest;
  }
  for (auto version = found->rbegin(); version != found->rend(); ++version) {
    Result<Checkpoint> checkpoint = load(*version);
    if (checkpoint.ok()) {
      newest.checkpoint = std::move(checkpoint).value();
      break;
    }
    newest.skipped.push_back(checkpoint.error().message);
  }
  return newest;
}

Result<std::vector<Version>> CheckpointStore::versions() const {
  TESSERA_ASSIGN(const std::vector<FolderEntry> entries, files_->list_folder(folder_));
  std::vector<Version> versions;
  for (const FolderEntry& entry : entries) {
    if (!entry.is_folder || !is_version_name(entry.name)) continue;
    const Version version{std::stoll(entry.name)};
    if (folder_of(version).filename() == entry.name) versions.push_back(version);  // "000000001" is not ours
  }
  std::sort(versions.begin(), versions.end());
  return versions;
}

Status CheckpointStore::keep_newest(std::size_t count) {
  TESSERA_TRY(remove_leftovers(folder_, *files_));
  TESSERA_ASSIGN(const std::vector<Version> found, versions());
  if (found.size() <= count) return {};
  const Newest newest = newest_complete();
  // With none that loads, the damaged ones are all that a rescue could start from.
  if (!newest.checkpoint) return {};
  for (std::size_t i = 0; i + count < found.size(); ++i) {
    if (found[i] < newest.checkpoint->version) TESSERA_TRY(remove_version(found[i]));
  }
  return {};
}

Status CheckpointStore::remove_version(Version version) {
  // The manifest goes first: a crash in between leaves a folder that nobody takes for a checkpoint.
  TESSERA_TRY(files_->remove(folder_of(version) / manifest_name));
  return remove_tree(folder_of(version), *files_);
}

}  // namespace tessera
