#include "optim/outer_gain.h"

#include <algorithm>
#include <cmath>

namespace tessera {
namespace {

/// How far a step of rate 1 carries in the long run when successive deltas have this correlation: momentum
/// adds mu of the last delta, mu^2 of the one before, of which only the correlated part goes the same way.
double momentum_gain(double momentum, double persistence) {
  return 1 + momentum / (1 - momentum * persistence);
}

/// Where DiLoCo's outer step does best over a wide range (measured): about the mean change itself.
constexpr double whole_change = 1.05;

}  // namespace

OuterSignals signals_of(std::span<const Update> updates) {
  double sum_squares = 0, contribution_squares = 0, pairs = 0;  // over shared coordinates
  double with_momentum = 0, momentum_squares = 0, mean_squares = 0;
  double cut_elements = 0, cut_owners = 0;
  for (const Update& update : updates) {
    const double count = static_cast<double>(update.delta.size());
    if (update.cut) {
      cut_elements += count;
      cut_owners += count * update.owners;
      continue;
    }
    double squares = 0;
    for (const double d : update.delta) squares += d * d;
    mean_squares += squares;
    if (update.owners > 1) {
      sum_squares += update.owners * update.owners * squares;
      contribution_squares += update.squares;
      pairs = std::max(pairs, update.owners - 1.0);
    }
    if (update.state.empty()) continue;
    for (std::size_t i = 0; i < update.delta.size(); ++i) {
      const double b = update.state[0][i];
      with_momentum += update.delta[i] * b;
      momentum_squares += b * b;
    }
  }
  OuterSignals signals;
  if (contribution_squares > 0) {
    signals.agreement = std::clamp((sum_squares / contribution_squares - 1) / pairs, 0.0, 1.0);
  }
  if (momentum_squares > 0 && mean_squares > 0)
    signals.persistence = with_momentum / std::sqrt(momentum_squares * mean_squares);
  if (cut_elements > 0) signals.cut_owners = cut_owners / cut_elements;
  return signals;
}

double shared_gain(const OuterSignals& signals, double momentum) {
  return whole_change / momentum_gain(momentum, std::clamp(signals.persistence, 0.0, 1.0));
}

double cut_gain(const OuterSignals& signals, double momentum, std::int32_t slots) {
  const double share = std::min(1.0, signals.cut_owners / slots);
  return whole_change * 2 * share / (1 + share) / momentum_gain(momentum, 0);
}

}  // namespace tessera
