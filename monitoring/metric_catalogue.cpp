// The one declaration of every metric. Names follow prometheus.io: one prefix, base units, _total on
// counters, bounded labels.
#include "monitoring/metrics.h"

#ifndef TESSERA_VERSION
#error "monitoring/CMakeLists.txt gives TESSERA_VERSION"
#endif

namespace tessera::metric {
namespace {
using Type = MetricInfo::Type;
}

const MetricInfo rounds_committed{
    "tessera_rounds_committed_total", Type::counter, "Merges committed by the coordinator.", "", {}};
const MetricInfo uncovered_rounds{
    "tessera_uncovered_rounds_total",
    Type::counter,
    "Merges in which some trainable coordinate had no contribution and kept its value.",
    "",
    {}};
const MetricInfo uncovered_coordinates{
    "tessera_uncovered_coordinates",
    Type::gauge,
    "Trainable coordinates that had no contribution in the newest merge; alert when above 0.",
    "",
    {}};
const MetricInfo staleness{
    "tessera_staleness",
    Type::gauge,
    "Versions made since the oldest contribution to the newest merge started (methods async, decoupled).",
    "",
    {}};
const MetricInfo late{"tessera_late_contributions_total",
                      Type::counter,
                      "Contributions merged although newer versions had been made since they started.",
                      "",
                      {}};
const MetricInfo held_slices{
    "tessera_held_slices",
    Type::gauge,
    "Slices whose owners were all left out of the newest merge; the log names them. Alert when above 0.",
    "",
    {}};
const MetricInfo held_rounds{"tessera_held_rounds",
                             Type::gauge,
                             "Merges in a row that the longest held slice went without a contribution.",
                             "",
                             {}};
const MetricInfo left_out{
    "tessera_left_out_total", Type::counter, "Contributions that merges closed without (mode drop).", "", {}};
const MetricInfo units{"tessera_units_total",
                       Type::counter,
                       "Tokens, frames or samples (the run's unit) consumed by merged contributions.",
                       "",
                       {}};
const MetricInfo flops{"tessera_flops_total",
                       Type::counter,
                       "Floating-point operations of the steps behind merged contributions, by the formula "
                       "of `tessera plan`; evaluation is not counted.",
                       "",
                       {}};
const MetricInfo flops_saved{"tessera_flops_saved_total",
                             Type::counter,
                             "Operations that the same steps would have taken besides without a cut.",
                             "",
                             {}};
const MetricInfo loss{"tessera_loss",
                      Type::gauge,
                      "Training loss per unit over the last committed round, in nats for language models.",
                      "",
                      {}};
const MetricInfo eval_loss{"tessera_eval_loss",
                           Type::gauge,
                           "Loss of the outer parameters on held-out data, last evaluation.",
                           "",
                           {}};
const MetricInfo wire_bytes{"tessera_wire_bytes_total",
                            Type::counter,
                            "Payload bytes moved, by path and direction as this process sees it; shared "
                            "memory never touches a socket.",
                            "direction",
                            {"control_in", "control_out", "bulk_in", "bulk_out", "shared_in"}};
const MetricInfo phase_seconds{"tessera_round_phase_seconds",
                               Type::histogram,
                               "Seconds that a round spends in each of its phases.",
                               "phase",
                               {"compute", "encode", "wait", "wire", "merge", "commit", "round"}};
const MetricInfo merge_part_seconds{
    "tessera_merge_part_seconds",
    Type::histogram,
    "Seconds of the coordinator's parts of a merge: contributions checked and staged (of all slots), read "
    "(where a predecessor staged them); the new version encoded and hashed, side by side, and the one before "
    "saved, while workers went on with it; "
    "and processor time of the whole process since the merge before.",
    "part",
    {"validate", "stage", "read", "commit_save", "commit_encode", "commit_hash", "processor"}};
const MetricInfo step_seconds{"tessera_step_seconds",
                              Type::histogram,
                              "Seconds of one inner optimizer step, mean over a contribution's steps.",
                              "",
                              {}};
const MetricInfo workers_alive{
    "tessera_workers_alive", Type::gauge, "Workers heard within their lease.", "", {}};
const MetricInfo slots_leased{"tessera_slots_leased", Type::gauge, "Slots that a worker holds now.", "", {}};
const MetricInfo stale_messages{
    "tessera_stale_messages_total",
    Type::counter,
    "Messages that came too late or from the wrong place, by what gave them away: they changed nothing.",
    "reason",
    {"job", "epoch", "incarnation", "attempt", "version", "holder", "fetched", "merged", "evaluated",
     "malformed", "unknown worker", "dead worker", "not for coordinators"}};
const MetricInfo rejected_contributions{
    "tessera_rejected_contributions_total",
    Type::counter,
    "Contributions refused before the merge, by reason; the log names slot and tensor.",
    "reason",
    {"contribution", "other digest"}};
const MetricInfo dropped_messages{
    "tessera_dropped_messages_total",
    Type::counter,
    "Frames that a transport dropped, by reason (comm/drop_reasons.h); the sender's other messages are "
    "unharmed.",
    "reason",
    {"too_large", "ragged", "malformed", "protocol", "kind", "text", "count", "number", "range", "handshake",
     "anonymous", "parts", "wrong_path", "no_route", "peer_busy", "unexpected", "checksum", "digest",
     "shared_path"}};
const MetricInfo recoveries{"tessera_recoveries_total",
                            Type::counter,
                            "Recoveries from a lost party, by what was lost.",
                            "kind",
                            {"worker", "coordinator", "resume"}};
const MetricInfo checkpoint_seconds{"tessera_checkpoint_seconds",
                                    Type::histogram,
                                    "Seconds to write one checkpoint until it is durable.",
                                    "",
                                    {}};
const MetricInfo checkpoint_bytes{
    "tessera_checkpoint_bytes", Type::gauge, "Size of the newest checkpoint.", "", {}};
const MetricInfo checkpoint_failures{"tessera_checkpoint_failures_total",
                                     Type::counter,
                                     "Checkpoints that could not be written; the one before is kept.",
                                     "",
                                     {}};
const MetricInfo checkpoint_last_ok{
    "tessera_checkpoint_last_success_timestamp_seconds",
    Type::gauge,
    "When the newest checkpoint became durable, in Unix time; 0 before the first.",
    "",
    {}};
const MetricInfo last_commit{"tessera_last_commit_timestamp_seconds",
                             Type::gauge,
                             "When the last merge was committed, in Unix time; 0 before the first.",
                             "",
                             {}};
const MetricInfo epoch{
    "tessera_epoch", Type::gauge, "Generation of the coordinator: 1 at first, +1 per restart.", "", {}};
const MetricInfo exact{"tessera_exact",
                       Type::gauge,
                       "1 while every merge so far took every slot's contribution, 0 after a partial one.",
                       "",
                       {}};
const MetricInfo build_info{"tessera_build_info",
                            Type::gauge,
                            "Always 1; the label says which build is running.",
                            "version",
                            {TESSERA_VERSION}};

const std::vector<const MetricInfo*>& catalogue() {
  static const std::vector<const MetricInfo*> all{&rounds_committed,
                                                  &uncovered_rounds,
                                                  &uncovered_coordinates,
                                                  &held_slices,
                                                  &held_rounds,
                                                  &left_out,
                                                  &staleness,
                                                  &late,
                                                  &units,
                                                  &flops,
                                                  &flops_saved,
                                                  &loss,
                                                  &eval_loss,
                                                  &wire_bytes,
                                                  &phase_seconds,
                                                  &merge_part_seconds,
                                                  &step_seconds,
                                                  &workers_alive,
                                                  &slots_leased,
                                                  &stale_messages,
                                                  &rejected_contributions,
                                                  &dropped_messages,
                                                  &recoveries,
                                                  &checkpoint_seconds,
                                                  &checkpoint_bytes,
                                                  &checkpoint_failures,
                                                  &checkpoint_last_ok,
                                                  &last_commit,
                                                  &epoch,
                                                  &exact,
                                                  &build_info};
  return all;
}

const std::vector<double>& bucket_bounds() {
  static const std::vector<double> bounds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                          1,     2.5,    5,     10,   25,    50,   100, 250,  1000};
  return bounds;
}

}  // namespace tessera::metric
