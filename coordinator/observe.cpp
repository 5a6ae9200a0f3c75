// What a coordinator tells of itself: the Prometheus metrics and the rows of metrics.jsonl.
#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "coordinator/coordinator.h"

namespace tessera {
namespace {

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

void Coordinator::count(const action::Count& count) {
  switch (count.what) {
    case action::Count::What::stale:
      return metrics_.add(metric::stale_messages, 1, count.label);
    case action::Count::What::rejected:
      return metrics_.add(metric::rejected_contributions, 1, count.label);
    case action::Count::What::recovery:
      return metrics_.add(metric::recoveries, 1, count.label);
  }
}

void Coordinator::record_metrics(const CommitRecord& commit) {
  const Work& work = commit.totals.work;
  const double contributions = std::max(1, commit.totals.contributions);
  metrics_.add(metric::rounds_committed);
  metrics_.add(metric::units, work.units);
  metrics_.add(metric::flops, work.flops);
  metrics_.add(metric::flops_saved, std::max(0.0, work.flops_uncut - work.flops));
  if (work.loss_weight > 0) metrics_.set(metric::loss, work.loss_sum / work.loss_weight);
  if (commit.totals.uncovered > 0) metrics_.add(metric::uncovered_rounds);
  std::int64_t oldest = 0, late = 0;
  for (const std::int64_t staleness : commit.totals.staleness) {
    oldest = std::max(oldest, staleness);
    late += staleness > 0 ? 1 : 0;
  }
  metrics_.set(metric::staleness, static_cast<double>(oldest));
  metrics_.add(metric::late, static_cast<double>(late));
  metrics_.set(metric::uncovered_coordinates, static_cast<double>(commit.totals.uncovered));
  metrics_.add(metric::left_out, static_cast<double>(commit.left_out.size()));
  if (!commit.left_out.empty()) metrics_.set(metric::exact, 0);
  metrics_.observe(metric::phase_seconds, commit.totals.round_seconds, "round");
  metrics_.observe(metric::phase_seconds, work.compute_seconds / contributions, "compute");
  metrics_.observe(metric::phase_seconds, work.encode_seconds / contributions, "encode");
  metrics_.observe(metric::phase_seconds, commit.totals.merge_seconds, "merge");
  metrics_.observe(metric::phase_seconds, work.wait_seconds / contributions, "wait");
  if (auto known = phases_.find(commit.version); known != phases_.end()) {
    metrics_.observe(metric::phase_seconds, known->second.wire / contributions, "wire");
    metrics_.observe(metric::phase_seconds, known->second.commit, "commit");
    for (const auto& [name, value] : known->second.parts)
      metrics_.observe(metric::merge_part_seconds, value, name);
  }
  if (work.steps > 0)
    metrics_.observe(metric::step_seconds, work.compute_seconds / static_cast<double>(work.steps));
  metrics_.set(metric::last_commit, unix_time());
}

void Coordinator::record_checkpoint(double took_seconds, double bytes) {
  metrics_.observe(metric::checkpoint_seconds, took_seconds);
  metrics_.set(metric::checkpoint_bytes, bytes);
  metrics_.set(metric::checkpoint_last_ok, unix_time());
}

void Coordinator::update_gauges() {
  const TransportCounters counters = endpoint_.counters();
  metrics_.set(metric::workers_alive, state_.members.serving_count());
  metrics_.set(metric::wire_bytes, static_cast<double>(counters.control_bytes_in), "control_in");
  metrics_.set(metric::wire_bytes, static_cast<double>(counters.control_bytes_out), "control_out");
  metrics_.set(metric::wire_bytes, static_cast<double>(counters.bulk_bytes_in), "bulk_in");
  metrics_.set(metric::wire_bytes, static_cast<double>(counters.bulk_bytes_out), "bulk_out");
  metrics_.set(metric::wire_bytes, static_cast<double>(counters.shared_bytes_in), "shared_in");
  for (const auto& [reason, number] : counters.dropped) {
    metrics_.set(metric::dropped_messages, static_cast<double>(number), reason);
  }
  double leased = 0;
  for (const SlotLedger& slot : state_.ledger.slots) leased += state_.members.serving(slot.holder) ? 1 : 0;
  metrics_.set(metric::slots_leased, leased);
  double held = 0, longest = 0;
  for (const FragmentLedger& fragment : state_.ledger.fragments) {
    held += static_cast<double>(fragment.held.size());
    for (const HeldSlice& slice : fragment.held)
      longest = std::max(longest, static_cast<double>(slice.merges));
  }
  metrics_.set(metric::held_slices, held);
  metrics_.set(metric::held_rounds, longest);
}

std::string Coordinator::row_of(const CommitRecord& commit, const std::optional<Evaluated>& evaluated) const {
  const MergeTotals& totals = commit.totals;
  const double contributions = std::max(1, totals.contributions);
  nlohmann::ordered_json row = {{"round", commit.version.value}, {"units", totals.work.units}};
  if (fragments_.size() > 1) row["fragment"] = commit.fragment.value;
  if (totals.work.loss_weight > 0) row["loss"] = totals.work.loss_sum / totals.work.loss_weight;
  if (evaluated) {
    row["eval_loss"] = evaluated->loss_sum / evaluated->weight;
    row["eval"] = {{"loss_sum", evaluated->loss_sum},
                   {parts_.unit, evaluated->weight},
                   {"bytes", evaluated->bytes},
                   {"words", evaluated->words}};
  }
  row["flops"] = totals.work.flops;
  if (totals.work.flops_uncut > 0) row["flops_saved"] = 1 - totals.work.flops / totals.work.flops_uncut;
  row["bytes_up"] = totals.bytes_up;
  row["bytes_down"] = totals.bytes_down;
  row["contributions"] = totals.contributions;
  if (!totals.staleness.empty()) {
    row["staleness"] = totals.staleness;
    row["steps"] = totals.work.steps;
  }
  row["uncovered"] = totals.uncovered;
  for (SlotId slot : commit.left_out) row["left_out"].push_back(slot.value);
  for (const HeldSlice& slice : commit.held) row["held"][slice.name] = slice.merges;
  row["grad_norm"] = totals.work.grad_norm;
  row["outer"] = {{"delta_norm", totals.delta_norm},
                  {"lr", totals.outer.lr},
                  {"cut_lr", totals.outer.cut_lr},
                  {"agreement", totals.outer.agreement},
                  {"persistence", totals.outer.persistence}};
  nlohmann::ordered_json phases = {{"round", totals.round_seconds},
                                   {"compute", totals.work.compute_seconds / contributions},
                                   {"encode", totals.work.encode_seconds / contributions},
                                   {"wait", totals.work.wait_seconds / contributions},
                                   {"merge", totals.merge_seconds}};
  if (auto known = phases_.find(commit.version); known != phases_.end()) {
    phases["wire"] = known->second.wire / contributions;
    phases["commit"] = known->second.commit;
    phases["parts"] = known->second.parts;
    phases["step_by_slot"] = known->second.step_by_slot;
  }
  row["seconds"] = phases;
  row["state_hash"] = commit.chain.hex();
  return row.dump();
}

}  // namespace tessera
