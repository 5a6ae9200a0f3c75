#include "coordinator/assign.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <optional>

#include "base/error.h"
#include "base/text.h"

namespace tessera {
namespace {

/// "0, 2" -> 0 and 2; nothing when it is not a list of numbers.
std::optional<std::vector<std::int32_t>> slots_in(const std::string& text) {
  std::vector<std::int32_t> slots;
  for (std::string word : split(text, ',')) {
    word.erase(0, word.find_first_not_of(' '));
    word.erase(word.find_last_not_of(' ') + 1);
    std::int32_t slot = 0;
    const auto read = std::from_chars(word.data(), word.data() + word.size(), slot);
    if (word.empty() || read.ec != std::errc() || read.ptr != word.data() + word.size()) return std::nullopt;
    slots.push_back(slot);
  }
  std::sort(slots.begin(), slots.end());
  return slots;
}

void check_owners(const PartialSettings& settings, std::int32_t slots, Sentences& wrong) {
  for (std::size_t k = 0; k < settings.owners.size(); ++k) {
    const std::string where =
        "partial.owners: '" + settings.owners[k] + "' (slice " + std::to_string(k) + ") ";
    const auto named = slots_in(settings.owners[k]);
    if (!named) {
      wrong.push_back(where + "is not a list of slots such as \"0,2\".");
    } else if (named->front() < 0 || named->back() >= slots) {
      const std::int32_t bad = named->front() < 0 ? named->front() : named->back();
      wrong.push_back(where + "names slot " + std::to_string(bad) + ", but the slots are 0 to " +
                      std::to_string(slots - 1) + ".");
    } else if (std::adjacent_find(named->begin(), named->end()) != named->end()) {
      wrong.push_back(where + "names a slot twice.");
    }
  }
}

}  // namespace

Sentences assignment_problems(const PartialSettings& settings, std::int32_t slots) {
  Sentences wrong;
  const std::int64_t most = slots + settings.replicas - 1;
  const bool dealt = settings.assign == "modulo" || settings.assign == "balanced";
  if (dealt && settings.cut != "none" && settings.slices > most) {
    wrong.push_back("partial.slices = " + std::to_string(settings.slices) + " leaves " +
                    std::to_string(settings.slices - most) +
                    " slices without an owner: there are only slots = " + std::to_string(slots) +
                    "; use at most " + std::to_string(most) + " slices or more slots.");
  }
  if (settings.assign == "explicit") check_owners(settings, slots, wrong);
  const auto speeds = static_cast<std::int32_t>(settings.speeds.size());
  if (settings.assign == "balanced" && speeds > 0 && speeds != slots) {
    wrong.push_back("partial.speeds has " + std::to_string(speeds) + " numbers for " + std::to_string(slots) +
                    " slots; it needs one per slot.");
  }
  return wrong;
}

std::vector<std::vector<std::int32_t>> owners_of_parts(const PartialSettings& settings, std::int32_t slots) {
  const std::int64_t n = settings.slices;
  std::vector<std::vector<std::int32_t>> owners(n);
  if (settings.assign == "explicit") {
    for (std::int64_t k = 0; k < n; ++k) owners[k] = *slots_in(settings.owners[k]);
  } else if (settings.blocks()) {
    owners[0].resize(slots);
    std::iota(owners[0].begin(), owners[0].end(), 0);
  } else {
    for (std::int32_t slot = 0; slot < slots; ++slot) {
      for (std::int64_t j = 0; j < settings.replicas; ++j) owners[((slot - j) % n + n) % n].push_back(slot);
    }
  }
  return owners;
}

SlotWork work_of(const Divisible& divisible, const CostModel& cost) {
  const double all = step_flops_uncut(divisible.specs, cost, 1).total(), cut = 2 * divisible.products();
  return {.fixed = std::max(0.0, all - cut), .cut = cut};
}

/// The common time T of all parts that are not held at the least share follows from the shares' sum of one:
/// share = (T speed - fixed) / cut. Who would get less than the least is held there, which lowers T, so that
/// others may follow; it ends, since every round holds one more.
std::vector<double> shares_of_parts(const PartialSettings& settings,
                                    const std::vector<std::vector<std::int32_t>>& owners,
                                    const Divisible& divisible, const SlotWork& work) {
  const auto n = static_cast<double>(owners.size());
  std::vector<double> shares(owners.size(), 1 / n);
  if (settings.assign != "balanced" || work.cut <= 0) return shares;
  std::vector<double> speeds;
  for (const std::vector<std::int32_t>& slots : owners) {
    double slowest = settings.speeds[slots.front()];
    for (const std::int32_t slot : slots) slowest = std::min(slowest, settings.speeds[slot]);
    speeds.push_back(slowest);
  }
  if (std::equal(speeds.begin() + 1, speeds.end(), speeds.begin())) return shares;
  const double least = 1 / static_cast<double>(divisible.most_parts());
  std::vector<bool> held(owners.size(), false);
  for (bool changed = true; changed;) {
    changed = false;
    double rest = 1, free = 0, speed = 0;
    for (std::size_t k = 0; k < speeds.size(); ++k) {
      if (held[k]) {
        rest -= least;
      } else {
        free += 1;
        speed += speeds[k];
      }
    }
    if (free == 0) break;
    const double time = (work.cut * rest + free * work.fixed) / speed;
    for (std::size_t k = 0; k < speeds.size(); ++k) {
      shares[k] = held[k] ? least : (time * speeds[k] - work.fixed) / work.cut;
      if (held[k] || shares[k] >= least) continue;
      held[k] = changed = true;
    }
  }
  return shares;
}

}  // namespace tessera
