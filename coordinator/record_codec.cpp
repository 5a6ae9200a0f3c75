#include "coordinator/record_codec.h"

#include <nlohmann/json.hpp>

// How a member becomes JSON: ids as numbers, digests as hex, structs as objects of their members. Each struct
// lists its members once, for both directions.
namespace tessera {

template <class Tag, class Rep>
void to_json(nlohmann::json& json, const Id<Tag, Rep>& id) {
  json = id.value;
}
template <class Tag, class Rep>
void from_json(const nlohmann::json& json, Id<Tag, Rep>& id) {
  json.get_to(id.value);
}
void to_json(nlohmann::json& json, const Bits128& bits) {
  json = bits.hex();
}
void from_json(const nlohmann::json& json, Bits128& bits) {
  const auto parsed = Bits128::from_hex(json.get<std::string>());
  if (!parsed) throw std::invalid_argument("'" + json.get<std::string>() + "' is no digest");
  bits = *parsed;
}

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(MergeKey, slot, fragment, version, attempt)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Work, steps, units, loss_sum, loss_weight, first_sample, end_sample,
                                   compute_seconds, encode_seconds, wait_seconds, grad_norm, flops,
                                   flops_uncut)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Ready, data, numerics)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Evaluated, version, loss_sum, weight, bytes, words)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(OuterReport, lr, cut_lr, agreement, persistence)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(MergeTotals, work, contributions, bytes_up, bytes_down,
                                                round_seconds, merge_seconds, uncovered, delta_norm,
                                                staleness, outer)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(OpenRecord, epoch, job, slots, fragments)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(FactsRecord, facts)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LeaseRecord, slot, attempt, holder, reason)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(StagedRecord, key, digest, size, slot_state, work)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LostRecord, key, reason)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RejectedRecord, key, digest, tensor, reason)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(FreshRecord, slot, reason)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(HeldSlice, name, merges)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SealedRecord, fragment, version, contributions, left_out, held, reason)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(CommitRecord, fragment, version, state, chain, evaluate, totals, left_out,
                                   held)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(EvaluatedRecord, evaluated)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RollbackRecord::Point, version, chain)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RollbackRecord, fragments, slot_states, reason)

namespace {

constexpr const char* names[] = {"open",  "facts",  "lease",  "staged",    "lost",    "rejected",
                                 "fresh", "sealed", "commit", "evaluated", "rollback"};
static_assert(std::size(names) == std::variant_size_v<Record>);

template <std::size_t Type = 0>
Record read(std::uint32_t type, const nlohmann::json& json) {
  if constexpr (Type < std::variant_size_v<Record>) {
    if (type == Type) return json.get<std::variant_alternative_t<Type, Record>>();
    return read<Type + 1>(type, json);
  } else {
    throw std::invalid_argument("records of type " + std::to_string(type) + " are not known to this build");
  }
}

}  // namespace

std::uint32_t record_type(const Record& record) {
  return static_cast<std::uint32_t>(record.index());
}
const char* record_name(const Record& record) {
  return names[record.index()];
}

std::string encode_record(const Record& record) {
  return std::visit([](const auto& value) { return nlohmann::json(value).dump(); }, record);
}

Result<Record> decode_record(std::uint32_t type, std::string_view text) {
  try {
    return read(type, nlohmann::json::parse(text));
  } catch (const std::exception& wrong) {
    return fail(ExitCode::storage, "a log record cannot be read: ", wrong.what());
  }
}

}  // namespace tessera
