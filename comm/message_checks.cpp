#include "comm/message_checks.h"

#include <cmath>

#include "base/utf8.h"
#include "comm/drop_reasons.h"

namespace tessera {
namespace {

using Limits = MessageLimits;

bool is_control(char c, Text kind) {
  if (kind == Text::lines && (c == '\n' || c == '\t' || c == '\r')) return false;
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

bool is_name(std::string_view name) {
  if (name.empty() || name.size() > Limits::name) return false;
  constexpr std::string_view allowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:[]";
  return name.find_first_not_of(allowed) == name.npos;
}

bool is_path(std::string_view path) {
  if (path.empty()) return true;
  return path.front() == '/' && path.find("/../") == path.npos &&
         is_clean_text(path, Limits::line, Text::line);
}

/// Collects the first problem of a message.
class Checker {
 public:
  const char* problem = nullptr;

  void operator()(const Hello& m) {
    line(m.build), line(m.host), number(m.pid >= 0), number(m.capacity >= 0 && m.capacity <= Limits::slots);
    leases(m.held);
  }
  void operator()(const Ready& m) { line(m.numerics); }
  void operator()(const Heartbeat& m) {
    leases(m.held), count(m.heads.size(), Limits::heads);
    for (const KnownVersion& head : m.heads) number(head.fragment.value >= 0 && head.version.value >= 0);
  }
  void operator()(const Offer& m) {
    key(m.key), blob(m.contribution);
    if (m.slot_state_blob) blob(*m.slot_state_blob);
    const Work& w = m.work;
    for (double amount : {w.units, w.loss_weight, w.compute_seconds, w.encode_seconds, w.wait_seconds,
                          w.flops, w.flops_uncut})
      number(std::isfinite(amount) && amount >= 0);
    require(w.first_sample <= w.end_sample, drop::range);
  }
  void operator()(const Evaluated& m) {
    number(m.version.value >= 0);
    for (double amount : {m.weight, m.bytes, m.words}) number(std::isfinite(amount) && amount >= 0);
  }
  void operator()(const GrantFailed& m) { lease(m.slot, m.attempt), reason(m.reason); }
  void operator()(const Leave& m) { reason(m.reason); }
  void operator()(const Welcome& m) {
    require(is_clean_text(m.recipe, Limits::recipe, Text::lines), drop::text);
    number(m.lease_ms >= 0);
  }
  void operator()(const Refused& m) { reason(m.reason), code(m.code); }
  void operator()(const Grant& m) {
    lease(m.slot, m.attempt), rows(m.owned);
    count(m.heads.size(), Limits::heads);
    for (const FragmentHead& each : m.heads) head(each);
    if (m.slot_state_blob) blob(*m.slot_state_blob);
    number(m.steps >= 0);
  }
  void operator()(const Publish& m) { head(m.head); }
  void operator()(const Taken& m) { key(m.key), number(m.steps >= 0); }
  void operator()(const Rejected& m) { key(m.key), line(m.tensor), reason(m.reason); }
  void operator()(const Revoke& m) { lease(m.slot, m.attempt); }
  void operator()(const HeartbeatAck&) {}
  void operator()(const Stop& m) { reason(m.reason), code(m.code); }

 private:
  void require(bool holds, const char* word) {
    if (!holds && problem == nullptr) problem = word;
  }
  void number(bool holds) { require(holds, drop::number); }
  void count(std::size_t entries, std::size_t limit) { require(entries <= limit, drop::count); }
  void line(std::string_view text) { require(is_clean_text(text, Limits::line, Text::line), drop::text); }
  void reason(std::string_view text) {
    require(is_clean_text(text, Limits::reason, Text::lines), drop::text);
  }
  void code(std::int32_t exit_code) { number(exit_code >= 0 && exit_code <= 255); }
  void lease(SlotId slot, Attempt attempt) {
    number(slot.value >= 0 && slot.value < Limits::slots && attempt.value >= 0);
  }
  void leases(const std::vector<HeldSlot>& held) {
    count(held.size(), Limits::held);
    for (const HeldSlot& each : held) lease(each.slot, each.attempt);
  }
  void key(const MergeKey& k) {
    lease(k.slot, k.attempt);
    number(k.fragment.value >= 0 && k.version.value >= 0);
  }
  void blob(const BlobRef& ref) {
    number(ref.size <= Limits::blob);
    require(is_path(ref.path), drop::text);
  }
  void head(const FragmentHead& h) {
    number(h.fragment.value >= 0 && h.version.value >= 0);
    blob(h.parameters);
    if (h.fast) blob(*h.fast);
    if (h.update) blob(h.update->blob);
  }
  void rows(const RowSet& set) {
    count(set.size(), Limits::params);
    for (const auto& [name, ranges] : set) {
      require(is_name(name), drop::text);
      count(ranges.size(), Limits::ranges);
      std::int64_t previous_end = 0;
      for (const Rows& range : ranges) {
        require(previous_end <= range.begin && range.begin <= range.end, drop::range);
        previous_end = range.end;
      }
    }
  }
};

}  // namespace

const char* problem_of(const Message& message) {
  Checker checker;
  std::visit(checker, message);
  return checker.problem;
}

Message tidied(Message message) {
  const auto line = [](std::string& text) { text = clean_text(text, Limits::line, Text::line); };
  const auto reason = [](std::string& text) { text = clean_text(text, Limits::reason, Text::lines); };
  if (auto* hello = std::get_if<Hello>(&message)) line(hello->build), line(hello->host);
  if (auto* ready = std::get_if<Ready>(&message)) line(ready->numerics);
  if (auto* failed = std::get_if<GrantFailed>(&message)) reason(failed->reason);
  if (auto* leave = std::get_if<Leave>(&message)) reason(leave->reason);
  if (auto* refused = std::get_if<Refused>(&message)) reason(refused->reason);
  if (auto* rejected = std::get_if<Rejected>(&message)) line(rejected->tensor), reason(rejected->reason);
  if (auto* stop = std::get_if<Stop>(&message)) reason(stop->reason);
  return message;
}

bool is_clean_text(std::string_view text, std::size_t limit, Text kind) {
  if (text.size() > limit) return false;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0 || is_control(text.front(), kind)) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string clean_text(std::string_view text, std::size_t limit, Text kind) {
  std::string clean;
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (clean.size() + std::max<std::size_t>(length, 1) > limit) break;
    if (length == 0 || is_control(text.front(), kind)) {
      clean += '?';
      text.remove_prefix(1);
    } else {
      clean += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return clean;
}

}  // namespace tessera
