// How a version is made of staged contributions, saved and offered, and made again by whoever finds it
// committed and not saved.
#include <algorithm>

#include "base/parallel.h"
#include "comm/hash.h"
#include "coordinator/coordinator.h"

namespace tessera {

/// What the contributions of a merge hold, in slot order, as the record is; from where they are staged if
/// this process did not take them itself.
Result<std::vector<MergeInput>> Coordinator::inputs_of(const SealedRecord& sealed) {
  std::vector<MergeInput> inputs;
  for (const StagedRecord& record : sealed.contributions) {
    TensorMap tensors;
    if (auto kept = staged_.extract(record.key)) {
      tensors = std::move(kept.mapped());
    } else {
      TESSERA_ASSIGN(const Buffer bytes, store_->staged(record.digest));
      TESSERA_ASSIGN(tensors,
                     contribution_of(record.key, bytes, "staged contribution " + record.digest.hex()));
    }
    inputs.push_back({record.key.slot,
                      std::move(tensors),
                      {.staleness = sealed.version.value - record.key.version.value,
                       .steps = static_cast<std::int64_t>(record.work.steps),
                       .units = record.work.units}});
    std::erase_if(staged_, [&](const auto& staged) {  // of attempts that were given up
      const MergeKey& key = staged.first;
      return key.slot == record.key.slot && key.fragment == sealed.fragment &&
             key.version <= record.key.version;
    });
  }
  return inputs;
}

/// Puts the next version of a fragment into theta_ and outer_.
Result<Coordinator::Made> Coordinator::make_version(const SealedRecord& sealed) {
  const Version version{sealed.version.value + 1};
  const Instant begin = real_time();
  TESSERA_ASSIGN(std::vector<MergeInput> inputs, inputs_of(sealed));
  std::vector<TensorMap> moments;
  for (MergeInput& input : inputs) moments.push_back(take_moments(input.pieces));
  part("read", sealed.version, begin);
  TensorMap base;
  if (parts_.down.rounds()) {
    for (const auto& [name, tensor] : fragment_parameters(sealed.fragment))
      base.emplace(name, tensor.clone());
  }
  Made made{merger_.merge(sealed.fragment, version, inputs, theta_, outer_), {}};
  merge_moments(parts_.hand_over, version, moments, parts_.specs, outer_);
  if (parts_.down.rounds()) made.update = round_update(sealed.fragment, base, made.outcome.uncovered_rows);
  if (parts_.method->share() < 1) made.update = sparse_update_to(sealed.fragment, version);
  return made;
}

Status Coordinator::perform(const action::Merge& merge) {
  TESSERA_TRY(finish_saving());  // of what is about to change
  const SealedRecord& sealed = merge.sealed;
  const Version version{sealed.version.value + 1};
  const Instant begin = real_time();
  TESSERA_ASSIGN(Made made, make_version(sealed));
  const Instant merged_at = real_time();
  // Slices whose turn comes later have no owner, and are not missed.
  RowSet missed = made.outcome.uncovered_rows;
  if (!missed.empty() && parts_.trained) missed = common_rows(missed, parts_.trained(sealed.version));

  const TensorMap tensors = fragment_state(sealed.fragment);
  Status saved;
  Blob parameters;
  const TensorMap for_workers = published(sealed.fragment, version);  // of the same names as in `tensors`
  TensorDigests digests, of_the_rest;
  std::vector<std::pair<const char*, std::function<void()>>> duties{
      {"encode", [&] { parameters = parameters_blob(for_workers, &digests); }},
      {"hash", [&] {
         for (const auto& [name, tensor] : tensors) {
           if (!for_workers.contains(name)) of_the_rest.emplace(name, tensor_digest(name, tensor));
         }
       }}};
  if (!parts_.saves_later)
    duties.insert(duties.begin(),
                  {"save", [&] { saved = store_->save_state(sealed.fragment, version, tensors); }});
  std::vector<double> took(duties.size());
  parallel_for(duties.size(), parts_.merge.threads, [&](std::size_t i) {
    const Instant began = real_time();
    duties[i].second();
    took[i] = seconds(real_time() - began);
  });
  for (std::size_t i = 0; i < duties.size(); ++i)
    phases_[version].parts[std::string("commit_") + duties[i].first] += took[i];
  TESSERA_TRY(saved);
  digests.merge(of_the_rest);
  if (parts_.saves_later) save_later(sealed.fragment, version, tensors, real_time() - begin);
  const FragmentHead head = offer_head(sealed.fragment, version, {}, parameters, std::move(made.update));
  phases_[version].commit = seconds(real_time() - merged_at);
  const std::clock_t used = std::clock();
  phases_[version].parts["processor"] = static_cast<double>(used - used_) / CLOCKS_PER_SEC;
  used_ = used;
  phases_[version].step_by_slot.assign(state_.settings.slots(), 0);
  for (const StagedRecord& record : sealed.contributions) {
    if (record.work.steps == 0) continue;
    phases_[version].step_by_slot[record.key.slot.value] =
        record.work.compute_seconds / static_cast<double>(record.work.steps);
  }
  while (phases_.size() > 8) phases_.erase(phases_.begin());  // rows of older ones are written
  feed(event::Merged{.fragment = sealed.fragment,
                     .version = version,
                     .state = state_digest(digests),
                     .parameters = head.parameters,
                     .uncovered = elements_in(missed, parts_.specs),
                     .seconds = seconds(merged_at - begin),
                     .fast = head.fast,
                     .update = head.update,
                     .outer = made.outcome.outer,
                     .delta_norm = made.outcome.delta_norm});
  return {};
}

/// A version is published as soon as its commit is logged: until it is saved, the contributions that it was
/// made of and the version before are there, which is all that make_again() needs. Saving begins when workers
/// have had about the time that they need to adopt the version, and the cores.
void Coordinator::save_later(FragmentId fragment, Version version, TensorMap tensors, Duration made_in) {
  saving_.emplace(Saving{fragment, version, std::move(tensors), clock_.now() + made_in, {}, {}});
}

void Coordinator::start_saving() {
  saving_->took = do_beside([store = store_.get(), fragment = saving_->fragment, version = saving_->version,
                             tensors = saving_->tensors]() -> Result<double> {
    const Instant begin = real_time();
    TESSERA_TRY(store->save_state(fragment, version, tensors));
    return seconds(real_time() - begin);
  });
}

/// What is due of saving; never waits.
Status Coordinator::go_on_saving() {
  if (!saving_) return {};
  if (!saving_->took.valid()) {
    if (clock_.now() >= saving_->due) start_saving();
    return {};
  }
  const bool saved = saving_->took.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  return saved ? finish_saving() : Status();
}

Status Coordinator::finish_saving() {
  if (!saving_) return {};
  if (!saving_->took.valid()) start_saving();
  Saving saving = std::move(*saving_);
  saving_.reset();
  TESSERA_ASSIGN(const double took, saving.took.get());
  phases_[{saving.version.value + 1}].parts["commit_save"] += took;
  return discard(saving.merged);
}

Status Coordinator::discard(const std::vector<StagedRecord>& merged) {
  if (saving_) {
    saving_->merged.insert(saving_->merged.end(), merged.begin(), merged.end());
    return {};
  }
  const std::vector<Digest> unmerged = state_.ledger.unmerged();  // equal contributions share a file
  for (const StagedRecord& record : merged) {
    if (std::ranges::count(unmerged, record.digest) == 0) TESSERA_TRY(store_->discard(record.digest));
  }
  return {};
}

/// At recovery, when a version's commit is logged and its state was not saved.
Status Coordinator::make_again(const CommitRecord& commit) {
  const Version before{commit.version.value - 1};
  const SealedRecord* sealed = nullptr;
  for (const Record& record : store_->records()) {
    const auto* found = std::get_if<SealedRecord>(&record);
    if (found && found->fragment == commit.fragment && found->version == before) sealed = found;
  }
  if (!sealed)
    return fail(ExitCode::storage, "the log does not say what version ", commit.version, " is made of");
  TESSERA_TRY(load_version(commit.fragment, before));
  if (const Result<Made> made = make_version(*sealed); !made.ok()) return made.error();
  const TensorMap tensors = fragment_state(commit.fragment);
  if (state_digest(tensors) != commit.state)
    return fail(ExitCode::storage, "version ", commit.version, " was made again and is another");
  return store_->save_state(commit.fragment, commit.version, tensors);
}

}  // namespace tessera
