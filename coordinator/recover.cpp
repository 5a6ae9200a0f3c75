// What a coordinator does before its first event: finds in the run directory where its predecessor stopped.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "base/pieces.h"
#include "comm/storage/files.h"
#include "comm/storage/safetensors.h"
#include "coordinator/coordinator.h"
#include "coordinator/record_codec.h"
#include "monitoring/log.h"

namespace tessera {
namespace {

Path slot_state_file(const std::string& slots_folder, SlotId slot, const Digest& state) {
  char folder[16];
  std::snprintf(folder, sizeof folder, "%02d", slot.value);
  return Path(slots_folder) / folder / (state.hex() + ".safetensors");
}

/// The commit of a fragment's version, as the log last told it.
const CommitRecord* commit_of(const std::vector<Record>& records, FragmentId fragment, Version version) {
  const CommitRecord* found = nullptr;
  for (const Record& record : records) {
    const auto* commit = std::get_if<CommitRecord>(&record);
    if (commit && commit->fragment == fragment && commit->version == version) found = commit;
  }
  return found;
}

}  // namespace

Result<Buffer> Coordinator::slot_state(SlotId slot, const Digest& digest) const {
  if (const auto of_slot = slot_states_.find(slot); of_slot != slot_states_.end()) {
    if (const auto kept = of_slot->second.find(digest); kept != of_slot->second.end()) return kept->second;
  }
  if (parts_.slots_folder.empty()) {
    return fail(ExitCode::storage, "the state of slot ", slot, " did not come with its contribution");
  }
  const Path file = slot_state_file(parts_.slots_folder, slot, digest);
  TESSERA_ASSIGN(Buffer bytes, read_file(file));
  TESSERA_ASSIGN(const SafetensorsFile state, decode_safetensors(bytes, file.string()));
  if (state_digest(state.tensors) == digest) return bytes;
  return fail(ExitCode::storage, file.string(), " is damaged: it does not have the digest in its name");
}

/// Besides what a checkpoint may still ask for: the state at the newest commit, and those of what is staged.
void Coordinator::keep_slot_state(SlotId slot, const Digest& digest, const Buffer& state) {
  std::set<Digest> wanted{state_.ledger.slot(slot).committed_state};
  for (const FragmentLedger& fragment : state_.ledger.fragments) {
    for (const StagedEntry& entry : fragment.staged) {
      if (entry.record.key.slot == slot) wanted.insert(entry.record.slot_state);
    }
    if (!fragment.sealed) continue;
    for (const StagedRecord& record : fragment.sealed->contributions) {
      if (record.key.slot == slot) wanted.insert(record.slot_state);
    }
  }
  std::map<Digest, Buffer>& kept = slot_states_[slot];
  std::erase_if(kept, [&](const auto& entry) { return !wanted.contains(entry.first); });
  kept.insert_or_assign(digest, state);
}

std::optional<Buffer> Coordinator::older_slot_state(SlotId slot, Digest& digest) const {
  digest = {};
  std::vector<std::string> skipped;
  const std::optional<Checkpoint> newest = store_->newest_checkpoint(state_.version({0}), skipped);
  if (!newest) return std::nullopt;
  const Result<Record> position = decode_record(record_type(RollbackRecord{}), newest->extra);
  const auto shard = newest->shards.find(slot_shard(slot));
  if (!position.ok() || shard == newest->shards.end()) return std::nullopt;
  digest = std::get<RollbackRecord>(*position).slot_states[slot.value];
  return shard->second;
}

/// Whether every merge so far took every slot's contribution.
bool Coordinator::all_were_exact() const {
  if (state_.settings.arrivals_per_merge > 0) return false;
  const std::vector<Record>& records = store_->records();
  return std::none_of(records.begin(), records.end(), [](const Record& record) {
    const auto* commit = std::get_if<CommitRecord>(&record);
    return commit && !commit->left_out.empty();
  });
}

std::vector<Digest> Coordinator::initial_chains() const {
  std::vector<Digest> chains;
  for (std::size_t f = 0; f < fragments_.size(); ++f) {
    chains.push_back(chain_digest({}, state_digest(fragment_state({static_cast<std::int32_t>(f)})), {}));
  }
  return chains;
}

Status Coordinator::check_same_run(const OpenRecord& record) const {
  const auto fragments = static_cast<std::int32_t>(fragments_.size());
  if (record.slots == parts_.settings.slots() && record.fragments == fragments) return {};
  return fail(ExitCode::refused_recipe, "the log in ", (parts_.store.run / "log").string(),
              " is of a run with ", record.slots, " slots and ", record.fragments,
              " fragments; this recipe has ", parts_.settings.slots(), " and ", fragments);
}

Status Coordinator::recover() {
  theta_.clear();
  for (const auto& [name, tensor] : parts_.initial) theta_.emplace(name, tensor.clone());
  outer_ = initial_outer_state();
  Ledger ledger(parts_.settings.slots(), initial_chains());
  JobId job = parts_.settings.job.is_zero() ? random_bits128() : parts_.settings.job;
  for (const Record& record : store_->records()) {
    if (const auto* open = std::get_if<OpenRecord>(&record)) {
      TESSERA_TRY(check_same_run(*open));
      job = open->job;
    }
    ledger.apply(record);
  }
  parts_.settings.job = job;
  state_.settings = parts_.settings;  // for merges that are made again
  store_->set_job(job);
  if (!store_->records().empty()) metrics_.add(metric::recoveries, 1, "coordinator");
  TESSERA_TRY(load_committed(ledger));
  TESSERA_TRY(ensure_slot_states(ledger));

  start_.epoch = store_->epoch();
  for (std::size_t f = 0; f < ledger.fragments.size(); ++f) {
    const FragmentLedger& fragment = ledger.fragments[f];
    const FragmentId id{static_cast<std::int32_t>(f)};
    start_.heads.push_back(
        offer_head(id, fragment.version, fragment.chain, parameters_blob(published(id, fragment.version))));
    for (const StagedEntry& entry : fragment.staged) {
      if (!store_->staged(entry.record.digest).ok()) start_.missing.push_back(entry.record.digest);
    }
  }
  TESSERA_TRY(store_->discard_all_but(ledger.unmerged()));
  TESSERA_TRY(reconcile_rows(ledger));
  state_ = State(parts_.settings, std::move(ledger));
  return {};
}

/// Puts the committed version of each fragment into theta_ and outer_; goes back to a checkpoint when one
/// cannot be read.
Status Coordinator::load_committed(Ledger& ledger) {
  for (std::size_t f = 0; f < ledger.fragments.size(); ++f) {
    const FragmentId fragment{static_cast<std::int32_t>(f)};
    const Version version = ledger.fragments[f].version;
    if (const Status loaded = load_version(fragment, version); !loaded.ok()) {
      const CommitRecord* commit = commit_of(store_->records(), fragment, version);
      const Status made = commit ? make_again(*commit) : loaded;
      if (!made.ok()) {
        log_warning("version ", version, " cannot be made again: ", made.error().message);
        return roll_back(ledger, loaded.error().message);
      }
      log_info("version ", version, " was committed and not saved; made again");
    }
    if (!ledger.fragments[f].sealed) continue;
    for (const StagedRecord& record : ledger.fragments[f].sealed->contributions) {
      const Result<Buffer> staged = store_->staged(record.digest);
      if (!staged.ok()) return roll_back(ledger, staged.error().message);
    }
  }
  return {};
}

/// Where workers share the run directory, every slot's newest state must lie there: nobody else has it.
Status Coordinator::ensure_slot_states(Ledger& ledger) {
  if (parts_.slots_folder.empty()) return {};
  for (std::int32_t k = 0; k < parts_.settings.slots(); ++k) {
    const Digest& state = ledger.slots[k].state;
    if (state.is_zero() || std::filesystem::exists(slot_state_file(parts_.slots_folder, {k}, state)))
      continue;
    return roll_back(ledger, detail::describe("the state of slot ", k, " is not in ", parts_.slots_folder));
  }
  return {};
}

/// Puts a committed version of a fragment into theta_ and outer_, which hold version 0 at first.
Status Coordinator::load_version(FragmentId fragment, Version version) {
  if (version.value == 0) return {};
  TESSERA_ASSIGN(const TensorMap saved, store_->load_state(fragment, version));
  const CommitRecord* commit = commit_of(store_->records(), fragment, version);
  if (!commit || state_digest(saved) != commit->state) {
    return fail(ExitCode::storage, "the saved state of version ", version,
                " does not have the committed hash");
  }
  for (const auto& [name, tensor] : saved) {
    const PieceRows piece = rows_of_piece(name, tensor.shape.empty() ? 1 : tensor.shape[0]);
    std::optional<HostTensor> known = find_rows(theta_, piece.param, piece.rows);
    if (!known) known = find_rows(outer_, piece.param, piece.rows);
    TESSERA_CHECK(known && known->shape == tensor.shape && known->dtype == tensor.dtype,
                  ": a committed state has an unknown tensor ", name);
    std::ranges::copy(tensor.bytes(), known->buffer.bytes.begin());
  }
  return {};
}

Status Coordinator::roll_back(Ledger& ledger, const std::string& reason) {
  Version newest;
  for (const FragmentLedger& fragment : ledger.fragments) newest = std::max(newest, fragment.version);
  std::vector<std::string> skipped;
  std::optional<Checkpoint> checkpoint = store_->newest_checkpoint(newest, skipped);
  for (const std::string& why : skipped) log_warning("skipped a checkpoint: ", why);
  RollbackRecord record{.fragments = {}, .slot_states = {}, .reason = reason};
  if (checkpoint) {
    TESSERA_ASSIGN(const Record position, decode_record(record_type(record), checkpoint->extra));
    record = std::get<RollbackRecord>(position);
    record.reason = reason;
    TESSERA_ASSIGN(theta_, checkpoint->tensors("parameters"));
    TESSERA_ASSIGN(outer_, checkpoint->tensors("outer"));
  } else {  // from the beginning
    theta_.clear();
    for (const auto& [name, tensor] : parts_.initial) theta_.emplace(name, tensor.clone());
    outer_ = initial_outer_state();
    for (const Digest& chain : initial_chains()) record.fragments.push_back({{}, chain});
    record.slot_states.resize(parts_.settings.slots());
  }
  for (auto* tensors : {&theta_, &outer_}) {
    for (auto& [name, tensor] : *tensors)
      tensor = tensor.clone();  // merges write in place; a checkpoint's bytes are shared
  }
  for (std::int32_t k = 0; k < parts_.settings.slots(); ++k) {
    if (record.slot_states[k].is_zero() || parts_.slots_folder.empty()) continue;
    const Path file = slot_state_file(parts_.slots_folder, {k}, record.slot_states[k]);
    TESSERA_TRY(make_folder(file.parent_path()));
    TESSERA_TRY(atomic_write(file, checkpoint->shards.at(slot_shard({k})).bytes, parts_.store.durability));
  }
  for (std::size_t f = 0; f < record.fragments.size(); ++f) {
    const FragmentId fragment{static_cast<std::int32_t>(f)};
    if (record.fragments[f].version.value == 0) continue;
    TESSERA_TRY(store_->save_state(fragment, record.fragments[f].version, fragment_state(fragment)));
  }
  log_warning("going back to version ", record.fragments[0].version, ": ", reason);
  metrics_.add(metric::recoveries, 1, "resume");
  TESSERA_TRY(store_->append(record));
  ledger.apply(record);
  return {};
}

/// metrics.jsonl gets exactly one line per committed version that is not waiting for its evaluation: lines
/// that a crash cut are made again from the log, lines of versions that were rolled back go.
Status Coordinator::reconcile_rows(const Ledger& ledger) {
  std::map<std::pair<Version, FragmentId>, const CommitRecord*> commits;
  std::map<Version, Evaluated> evaluations;
  for (const Record& record : store_->records()) {
    if (const auto* commit = std::get_if<CommitRecord>(&record)) {
      commits[{commit->version, commit->fragment}] = commit;
    } else if (const auto* evaluated = std::get_if<EvaluatedRecord>(&record)) {
      evaluations[evaluated->evaluated.version] = evaluated->evaluated;
    }
  }
  TESSERA_ASSIGN(const std::vector<std::string> present, store_->rows());
  std::map<std::string, std::string> by_hash;
  for (const std::string& line : present) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object()) by_hash[json.value("state_hash", "")] = line;
  }
  std::vector<std::string> lines;
  for (const auto& [key, commit] : commits) {
    const FragmentLedger& fragment = ledger.fragment(commit->fragment);
    const bool waiting = fragment.unrated && fragment.unrated->version == commit->version;
    if (commit->version > fragment.version || waiting) continue;
    const auto kept = by_hash.find(commit->chain.hex());
    const auto evaluated = evaluations.find(commit->version);
    const bool with_evaluation = commit->evaluate && evaluated != evaluations.end();
    lines.push_back(kept != by_hash.end()
                        ? kept->second
                        : row_of(*commit, with_evaluation ? std::optional(evaluated->second) : std::nullopt));
  }
  // Also when nothing changes: what a crash left of a line must not begin the next one.
  return store_->replace_rows(lines);
}

}  // namespace tessera
