#include "coordinator/run_store.h"

#include <algorithm>
#include <cstdio>

#include "base/text.h"
#include "comm/hash.h"
#include "comm/storage/files.h"
#include "comm/storage/safetensors.h"
#include "comm/transport/bulk_shared.h"
#include "coordinator/record_codec.h"

namespace tessera {

Result<std::unique_ptr<RunStore>> RunStore::open(const RunStoreSettings& settings) {
  TESSERA_ASSIGN(DirectoryLock lock, DirectoryLock::take(settings.run));
  TESSERA_TRY(make_folder(settings.run / "log" / "staged"));
  TESSERA_ASSIGN(const Epoch epoch, claim_next_epoch(settings.run));
  for (const Path& folder : {settings.run, settings.run / "log", settings.run / "log" / "staged"}) {
    TESSERA_TRY(remove_leftovers(folder));
  }
  TESSERA_ASSIGN(OpenedLog log, RecordLog::open(settings.run / "log", epoch));
  std::vector<Record> records;
  for (const LogRecord& entry : log.replay.records) {
    TESSERA_ASSIGN(Record record, decode_record(entry.type, entry.payload));
    records.push_back(std::move(record));
  }
  std::unique_ptr<RunStore> store(new RunStore(settings, std::move(lock), epoch, std::move(log)));
  store->records_ = std::move(records);
  return store;
}

RunStore::RunStore(RunStoreSettings settings, DirectoryLock lock, Epoch epoch, OpenedLog log)
    : settings_(std::move(settings)), lock_(std::move(lock)), epoch_(epoch), log_(std::move(log.log)) {}

RunStore::~RunStore() {
  remove_spares();
}

void RunStore::remove_spares() {
  for (const Path& spare : std::exchange(spares_, {})) (void)disk().remove(spare);
}

void RunStore::set_job(const JobId& job) {
  checkpoints_ = std::make_unique<CheckpointStore>(settings_.run / "checkpoints",
                                                   CheckpointIdentity{job, settings_.model});
}

Status RunStore::append(const Record& record) {
  TESSERA_TRY(require_newest_epoch(settings_.run, epoch_));
  const Result<std::uint64_t> lsn =
      log_.append(record_type(record), encode_record(record), settings_.durability);
  return lsn.ok() ? Status() : Status(lsn.error());
}

Path RunStore::state_file(FragmentId fragment, Version version) const {
  char name[64];
  std::snprintf(name, sizeof name, "state-%d-%08lld.safetensors", fragment.value,
                static_cast<long long>(version.value));
  return settings_.run / "log" / name;
}

Status RunStore::save_state(FragmentId fragment, Version version, const TensorMap& tensors) {
  const std::vector<Buffer> parts = safetensors_parts(tensors);
  std::vector<Bytes> bytes;
  for (const Buffer& part : parts) bytes.push_back(part.bytes);
  // The version before stays: a crash between here and the COMMIT record goes back to it.
  const Path older = version.value < 2 ? Path() : state_file(fragment, {version.value - 2});
  return atomic_replace(older, state_file(fragment, version), bytes, settings_.durability);
}

Result<TensorMap> RunStore::load_state(FragmentId fragment, Version version) const {
  const Path path = state_file(fragment, version);
  TESSERA_ASSIGN(Buffer bytes, read_file(path));
  TESSERA_ASSIGN(SafetensorsFile file, decode_safetensors(std::move(bytes), path.string()));
  return std::move(file.tensors);
}

Path RunStore::staged_file(const Digest& digest) const {
  return settings_.run / "log" / "staged" / (digest.hex() + ".safetensors");
}

Path RunStore::kept_file(const Digest& digest) const {
  return settings_.shared / kept_name(digest);
}

bool RunStore::is_kept(const Digest& digest) const {
  return !settings_.shared.empty() && disk().exists(kept_file(digest));
}

Status RunStore::stage(const Digest& digest, Bytes contribution, const Path& lies_in) {
  if (settings_.durability == Durability::process && !settings_.shared.empty() && !lies_in.empty()) {
    (void)disk().link(lies_in, kept_file(digest));
    if (is_kept(digest)) return {};  // this one, or an equal one
  }
  Path spare;
  if (!spares_.empty()) {
    spare = std::move(spares_.back());
    spares_.pop_back();
  }
  return atomic_replace(spare, staged_file(digest), std::span(&contribution, 1), settings_.durability);
}

Result<Buffer> RunStore::staged(const Digest& digest) const {
  const Path file = is_kept(digest) ? kept_file(digest) : staged_file(digest);
  TESSERA_ASSIGN(Buffer bytes, read_file(file));
  if (digest_of(Bytes(bytes.bytes)) == digest) return bytes;
  return fail(ExitCode::storage, file.string(), " is damaged: it does not have the digest in its name");
}

Status RunStore::discard(const Digest& digest) {
  if (is_kept(digest)) {
    std::error_code unknown;
    const auto size = std::filesystem::file_size(kept_file(digest), unknown);
    if (!unknown) TESSERA_TRY(disk().rename(kept_file(digest), settings_.shared / spare_name(size)));
  }
  const Path file = staged_file(digest), spare = tmp_name_for(file);
  if (disk().exists(file) && disk().rename(file, spare).ok()) spares_.push_back(spare);
  return {};
}

Status RunStore::settle(const std::vector<Digest>& staged) {
  for (const Digest& digest : staged) {
    if (!is_kept(digest)) continue;
    TESSERA_ASSIGN(const Buffer bytes, this->staged(digest));
    TESSERA_TRY(atomic_write(staged_file(digest), bytes.bytes, settings_.durability));
    TESSERA_TRY(disk().remove(kept_file(digest)));
  }
  return {};
}

Status RunStore::discard_all_but(const std::vector<Digest>& wanted) {
  TESSERA_ASSIGN(auto entries, list_folder(settings_.run / "log" / "staged"));
  if (!settings_.shared.empty() && disk().exists(settings_.shared)) {
    TESSERA_ASSIGN(const auto shared, list_folder(settings_.shared));
    for (const FolderEntry& entry : shared) {
      if (entry.name.starts_with(kept_prefix)) entries.push_back({entry.name.substr(kept_prefix.size())});
    }
  }
  for (const FolderEntry& entry : entries) {
    const auto digest = Bits128::from_hex(entry.name.substr(0, entry.name.find('.')));
    if (digest && std::find(wanted.begin(), wanted.end(), *digest) == wanted.end())
      TESSERA_TRY(discard(*digest));
  }
  return {};
}

Status RunStore::write_checkpoint(Version version, const Shards& shards, const std::string& position) {
  TESSERA_TRY(checkpoints_->write(version, shards, position, settings_.durability));
  return checkpoints_->keep_newest(settings_.keep);
}

bool RunStore::has_checkpoint(Version version) const {
  const auto versions = checkpoints_->versions();
  return versions.ok() && std::find(versions->begin(), versions->end(), version) != versions->end();
}

std::optional<Checkpoint> RunStore::newest_checkpoint(Version at_most,
                                                      std::vector<std::string>& skipped) const {
  const auto versions = checkpoints_->versions();
  if (!versions.ok()) return std::nullopt;
  for (auto version = versions->rbegin(); version != versions->rend(); ++version) {
    if (*version > at_most) continue;
    Result<Checkpoint> checkpoint = checkpoints_->load(*version);
    if (checkpoint.ok()) return std::move(*checkpoint);
    skipped.push_back(checkpoint.error().message);
  }
  return std::nullopt;
}

Status RunStore::write_row(const std::string& line) {
  TESSERA_ASSIGN(auto file, disk().open_append(settings_.run / "metrics.jsonl"));
  const std::string text = line + "\n";
  return file->append(std::as_bytes(std::span(text)));
}

Result<std::vector<std::string>> RunStore::rows() const {
  const Path path = settings_.run / "metrics.jsonl";
  if (!std::filesystem::exists(path)) return std::vector<std::string>{};
  TESSERA_ASSIGN(const Buffer bytes, read_file(path));
  std::vector<std::string> lines =
      split({reinterpret_cast<const char*>(bytes.bytes.data()), bytes.bytes.size()}, '\n');
  lines.pop_back();  // what follows the last line end: nothing, or a line that a crash cut
  return lines;
}

Status RunStore::replace_rows(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return atomic_write(settings_.run / "metrics.jsonl", text, settings_.durability);
}

std::string slot_shard(SlotId slot) {
  char name[32];
  std::snprintf(name, sizeof name, "slot-%02d", slot.value);
  return name;
}

}  // namespace tessera
