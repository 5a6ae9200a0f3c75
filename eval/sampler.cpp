#include "eval/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/random.h"

namespace tessera {
namespace {

/// Token ids by falling logit, as many as top-k and a temperature of 0 leave.
std::vector<std::int32_t> likeliest(std::span<const float> logits, const SamplerSettings& settings) {
  std::vector<std::int32_t> order;
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (logits[i] != -std::numeric_limits<float>::infinity()) order.push_back(static_cast<std::int32_t>(i));
  std::size_t keep = order.size();
  if (settings.top_k > 0) keep = std::min(keep, static_cast<std::size_t>(settings.top_k));
  if (settings.temperature == 0) keep = 1;
  const auto before = [&](std::int32_t a, std::int32_t b) {
    const float left = logits[static_cast<std::size_t>(a)], right = logits[static_cast<std::size_t>(b)];
    return left != right ? left > right : a < b;
  };
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(keep), order.end(), before);
  order.resize(keep);
  return order;
}

/// Keeps the shortest front that has probability top_p, and at least one; makes the rest add up to 1.
void keep_nucleus(std::vector<Candidate>& row, double top_p) {
  double kept = 0;
  std::size_t count = 0;
  while (count < row.size() && (count == 0 || kept < top_p)) kept += row[count++].probability;
  row.resize(count);
  for (Candidate& candidate : row) candidate.probability /= kept;
}

}  // namespace

Result<std::vector<Candidate>> candidates(std::span<const float> logits, const SamplerSettings& settings) {
  TESSERA_CHECK(settings.temperature >= 0 && settings.top_p > 0, ": temperature ", settings.temperature,
                ", top_p ", settings.top_p);
  bool any = false;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity())
      return fail(ExitCode::failed, "cannot draw a token: the logit of token ", i, " is ", logits[i],
                  "; the model's weights are damaged or its training diverged");
    any = any || std::isfinite(logits[i]);
  }
  if (!any)
    return fail(ExitCode::failed, "cannot draw a token: none of the ", logits.size(), " logits is finite");

  const std::vector<std::int32_t> order = likeliest(logits, settings);
  const double scale = settings.temperature == 0 ? 1 : settings.temperature,
               top = logits[static_cast<std::size_t>(order[0])];
  std::vector<Candidate> row;
  double total = 0;
  for (const std::int32_t token : order) {
    row.push_back({token, std::exp((logits[static_cast<std::size_t>(token)] - top) / scale)});
    total += row.back().probability;
  }
  for (Candidate& candidate : row) candidate.probability /= total;
  keep_nucleus(row, settings.top_p);
  return row;
}

Result<std::int32_t> sample_token(std::span<const float> logits, const SamplerSettings& settings,
                                  std::uint64_t key) {
  TESSERA_ASSIGN(const std::vector<Candidate> row, candidates(logits, settings));
  double left = KeyedRandom(key).uniform();
  for (const Candidate& candidate : row) {
    left -= candidate.probability;
    if (left < 0) return candidate.token;
  }
  return row.back().token;  // the probabilities' sum was rounded below 1
}

}  // namespace tessera
