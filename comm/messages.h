// Every message between coordinator and workers, as plain structs. Control messages are small and name their
// payload by BlobRef; tensors travel on the bulk path. Wire form: comm/messages.capnp, converted only in
// comm/message_codec.cpp.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/params.h"
#include "comm/blob.h"

namespace tessera {

/// Who speaks, for which job, under which coordinator. Stale headers change nothing and are counted.
struct Header {
  JobId job;                ///< zero until a worker has been welcomed
  Epoch epoch;              ///< the coordinator's; zero until a worker has been welcomed
  Incarnation incarnation;  ///< of the sending process
  std::uint64_t sequence = 0;
  auto operator<=>(const Header&) const = default;
};

/// What a contribution is for: it starts from `version` of `fragment` and asks to be part of the merge that
/// makes version+1.
struct MergeKey {
  SlotId slot;
  FragmentId fragment;
  Version version;
  Attempt attempt;
  auto operator<=>(const MergeKey&) const = default;
};

// ---- worker to coordinator ----

struct HeldSlot {
  SlotId slot;
  Attempt attempt;
  auto operator<=>(const HeldSlot&) const = default;
};
struct Hello {        ///< first message of an incarnation, and again to a new epoch
  std::string build;  ///< build id; must equal the coordinator's
  std::string host;
  std::int64_t pid = 0;
  std::int32_t capacity = 1;   ///< slots it is willing to hold
  Digest recipe;               ///< of the resolved recipe it was started with; zero: send it to me
  std::vector<HeldSlot> held;  ///< after a coordinator restart: what it still works on
  auto operator<=>(const Hello&) const = default;
};
struct Ready {           ///< the recipe is understood, data is open
  Digest data;           ///< of the token files
  std::string numerics;  ///< fingerprint: torch version, threads, CPU capability, flags
  auto operator<=>(const Ready&) const = default;
};
struct KnownVersion {
  FragmentId fragment;
  Version version;
  auto operator<=>(const KnownVersion&) const = default;
};
/// Life, progress, and what the worker believes: the coordinator answers with whatever the worker has missed,
/// so that a lost Grant, Revoke or Publish is repaired by the next heartbeat.
struct Heartbeat {
  std::uint64_t steps = 0;  ///< inner steps done by this incarnation: progress, not only life
  std::vector<HeldSlot> held;
  std::vector<KnownVersion> heads;  ///< newest version of each fragment that it has heard of
  auto operator<=>(const Heartbeat&) const = default;
};
/// What the work of a contribution was, for metrics and the ledger of consumed data.
struct Work {
  std::uint64_t steps = 0;
  double units = 0;                                ///< tokens, frames or samples consumed
  double loss_sum = 0;                             ///< weighted sum of the training loss
  double loss_weight = 0;                          ///< its denominator
  std::uint64_t first_sample = 0, end_sample = 0;  ///< positions in the slot's data stream, [first, end)
  double compute_seconds = 0, encode_seconds = 0, wait_seconds = 0;
  double grad_norm = 0;  ///< mean over the steps, before clipping
  double flops = 0;      ///< operations of the steps by the formula, and without the cut
  double flops_uncut = 0;
  auto operator<=>(const Work&) const = default;
};
struct Offer {  ///< "this is ready to be fetched"; repeated until Taken, Rejected or a newer Publish
  MergeKey key;
  BlobRef contribution;
  Digest slot_state;  ///< digest of the slot's state after the work: inner moments, cursor, step
  std::optional<BlobRef> slot_state_blob;  ///< when the merge ends in a checkpoint
  Work work;
  auto operator<=>(const Offer&) const = default;
};
struct Evaluated {  ///< held-out loss of the outer parameters at a version
  Version version;
  double loss_sum = 0, weight = 0;  ///< nats and units
  double bytes = 0,
         words = 0;  ///< of the evaluated text, for bits per byte and perplexity per word; 0 where senseless
  auto operator<=>(const Evaluated&) const = default;
};
struct GrantFailed {
  SlotId slot;
  Attempt attempt;
  std::string reason;
  auto operator<=>(const GrantFailed&) const = default;
};
struct Leave {
  std::string reason;
  auto operator<=>(const Leave&) const = default;
};

// ---- coordinator to worker ----

struct Welcome {
  std::string recipe;         ///< resolved, as TOML
  std::int64_t lease_ms = 0;  ///< a worker that is not heard for so long loses its slots
  auto operator<=>(const Welcome&) const = default;
};
struct Refused {
  std::string reason;
  std::int32_t code = 78;  ///< exit code the worker ends with
  auto operator<=>(const Refused&) const = default;
};
struct FragmentHead {  ///< a committed version of a fragment, to be adopted
  FragmentId fragment;
  Version version;
  BlobRef parameters;
  Digest state_hash;
  std::optional<BlobRef>
      fast;  ///< the owners' own values of what is cut, where those differ from `parameters`
  struct Update {
    BlobRef blob;
    Digest base;  ///< digest of the parameters that it makes `parameters` of
    auto operator<=>(const Update&) const = default;
  };
  /// The short way to `parameters` for whoever has the version before (comm/changes.h), where a codec makes
  /// one.
  std::optional<Update> update{};
  auto operator<=>(const FragmentHead&) const = default;
};
struct Grant {  ///< lease of a slot; idempotent
  SlotId slot;
  Attempt attempt;
  RowSet owned;  ///< what this slot trains
  std::vector<FragmentHead> heads;
  Digest slot_state;  ///< state the slot starts from; zero: fresh
  std::optional<BlobRef>
      slot_state_blob;      ///< where the coordinator has it; else the worker looks into its slots folder
  bool evaluate = false;    ///< evaluate the adopted parameters before training (Evaluated)
  bool save_state = false;  ///< the next contribution brings its slot state
  std::int64_t steps = 0;   ///< inner steps of the next contribution; 0: all that the method asks for
  bool operator==(const Grant&) const = default;
};
struct Publish {  ///< a merge was committed
  FragmentHead head;
  bool last = false;  ///< nothing follows: adopt, evaluate if asked, leave
  bool evaluate = false;
  bool save_state = false;
  auto operator<=>(const Publish&) const = default;
};
struct Taken {  ///< durable: the slot need not send it again
  MergeKey key;
  Digest digest;
  std::int64_t steps = 0;  ///< as in Grant
  auto operator<=>(const Taken&) const = default;
};
struct Rejected {
  MergeKey key;
  std::string tensor, reason;
  bool retry = false;  ///< re-run the work from the committed state
  auto operator<=>(const Rejected&) const = default;
};
struct Revoke {
  SlotId slot;
  Attempt attempt;
  auto operator<=>(const Revoke&) const = default;
};
struct HeartbeatAck {
  bool say_hello = false;  ///< you are not (or no longer) known here, or Ready is missing: say Hello again
  auto operator<=>(const HeartbeatAck&) const = default;
};
struct Stop {
  std::string reason;
  std::int32_t code = 0;  ///< exit code
  auto operator<=>(const Stop&) const = default;
};

using Message = std::variant<Hello, Ready, Heartbeat, Offer, Evaluated, GrantFailed, Leave, Welcome, Refused,
                             Grant, Publish, Taken, Rejected, Revoke, HeartbeatAck, Stop>;
const char* message_name(const Message& message);

}  // namespace tessera
