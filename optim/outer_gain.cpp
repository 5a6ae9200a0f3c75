#include "optim/outer_gain.h"

#include <algorithm>
#include <cmath>

namespace tessera {
namespace {

/// The share of its merged delta by which a slice may move at once. Slices are trained as if the others stood
/// still and jump together: what they mend alike is mended N times.
double together(std::int32_t slices) {
  return std::min(1.0, 2.0 / slices);
}

/// How far along the mean change a coordinate goes in the end. Measured: without slices a little beyond the
/// mean is best, and hardly worse from 1 to 1.5; where slices overshoot already, the mean itself.
double reach(std::int32_t slices) {
  return std::max(1.0, 1.3 * together(slices));
}

/// The share of the shared coordinates' updates that the signals need, summed up.
struct Sums {
  double mean_squares = 0;                   ///< of merged deltas
  double sum_squares = 0, slot_squares = 0;  ///< of sums over slots, and of what they are sums of
  double pairs = 0;                          ///< m - 1
  double with_momentum = 0, momentum_squares = 0;

  void add(const Update& update, bool without_momentum) {
    const DeltaProducts products = products_of(update);
    mean_squares += products.squares;
    if (!without_momentum) {
      with_momentum += products.with_momentum;
      momentum_squares += products.momentum_squares;
    }
    if (update.owners > 1) {
      sum_squares += update.owners * update.owners * products.squares;
      slot_squares += update.maker ? update.maker->squares() : update.squares;
      pairs = std::max(pairs, update.owners - 1.0);
    }
  }
};

}  // namespace

OuterSignals signals_of(std::span<const Update> updates, bool without_momentum) {
  Sums shared;
  double cut_elements = 0, cut_owners = 0;
  for (const Update& update : updates) {
    if (!update.cut) {
      shared.add(update, without_momentum);
      continue;
    }
    const auto count = static_cast<double>(update.theta.size());
    cut_elements += count;
    cut_owners += count * update.owners;
  }
  OuterSignals signals;
  // |sum of m deltas|^2 = sum of squares + m (m - 1) products of two different ones.
  signals.has_agreement = shared.slot_squares > 0;
  if (signals.has_agreement)
    signals.agreement = std::clamp((shared.sum_squares / shared.slot_squares - 1) / shared.pairs, 0.0, 1.0);
  if (shared.momentum_squares > 0 && shared.mean_squares > 0) {
    signals.persistence = shared.with_momentum / std::sqrt(shared.momentum_squares * shared.mean_squares);
    signals.carried = std::max(0.0, shared.with_momentum / shared.mean_squares);
  }
  if (cut_elements > 0) signals.cut_owners = cut_owners / cut_elements;
  return signals;
}

double shared_gain(const OuterSignals& signals, double momentum, std::int32_t slices) {
  // Nesterov goes along delta + mu (mu b + delta). A momentum that is all persistence has 1 / (1 - mu)
  // deltas.
  const double carried = std::min(signals.carried, 1 / (1 - momentum));
  return reach(slices) / (1 + momentum * (1 + momentum * carried));
}

double cut_gain(const OuterSignals& signals, double momentum, std::int32_t slots, std::int32_t slices) {
  // Of a mean over m deltas with pairwise cosine rho, m rho / (1 + (m - 1) rho) of the energy is what they
  // have in common (Wiener). The step shrinks by how much less that is for m owners than for all K slots.
  const double rho = signals.agreement;
  const double m = std::min<double>(signals.cut_owners, slots), k = slots;
  const double common = signals.has_agreement ? m / k * (1 + (k - 1) * rho) / (1 + (m - 1) * rho) : 1;
  const double at_once = std::min(common, together(slices)) / (1 + momentum);
  const double in_the_end = 1 - momentum;
  return reach(slices) * std::min(at_once, in_the_end);
}

double cut_momentum(std::int32_t slices, double shared_momentum) {
  // Where both limits of cut_gain meet: together / (1 + mu) = 1 - mu.
  return std::max(shared_momentum, std::sqrt(1 - together(slices)));
}

}  // namespace tessera
