#include "launch/reproduce/resolve.h"

#include <algorithm>

#include "launch/config/outline.h"

namespace tessera {

double ResolvedUnit::tokens() const {
  return cost_settings.tokens_per_step * static_cast<double>(cost_settings.steps * rounds * slots) * share;
}
double ResolvedUnit::merged_tokens() const {
  return tokens() - cost_settings.tokens_per_step * static_cast<double>(tail_steps * slots);
}
double ResolvedUnit::flops() const {
  return cost.total.flops * static_cast<double>(rounds) * share;
}
double ResolvedUnit::static_bytes() const {
  double most = 0;
  for (const SlotCost& slot : cost.slots) most = std::max(most, slot.memory.total());
  return most;
}
double ResolvedUnit::step_peak_bytes() const {
  double most = 0;
  for (const SlotCost& slot : cost.slots) most = std::max(most, slot.peak);
  return most;
}
double ResolvedUnit::trained_parameters() const {
  double sum = 0;
  for (const SlotCost& slot : cost.slots) sum += slot.owned_parameters;
  return cost.slots.empty() ? 0 : sum / static_cast<double>(cost.slots.size());
}

std::map<std::string, std::string> comparable_settings(const Recipe& recipe) {
  std::map<std::string, std::string> settings = flat_values(recipe);
  std::erase_if(settings, [](const auto& setting) {
    const std::string& name = setting.first;
    return name == "workers" || name == "durability" || name == "data.path" || name.starts_with("net.") ||
           name.starts_with("checkpoint.") || name.starts_with("generate.");
  });
  return settings;
}

}  // namespace tessera
