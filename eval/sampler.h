// Chooses the next token from a row of logits: temperature, then top-k, then top-p ("nucleus", Holtzman et
// al., arXiv 1904.09751), then one keyed draw. The same logits, settings and key give the same token.
// Torch-free.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/fields.h"

namespace tessera {

struct SamplerSettings : Settings {
  double temperature = 0.8;
  std::int64_t top_k = 0;
  double top_p = 0.95;
  void fields(FieldVisitor& f) override {
    f.field({"temperature", "divides the logits; 0 always takes the likeliest token", at_least(0)},
            temperature);
    f.field({"top_k", "draw among this many likeliest tokens; 0: all", at_least(0)}, top_k);
    f.field({"top_p",
             "draw among the likeliest tokens that together have this probability; 1: all",
             {.min = 0, .max = 1, .min_is_open = true}},
            top_p);
  }
};

/// What a row of logits leaves to draw from, likeliest first; ties go to the smaller id.
struct Candidate {
  std::int32_t token;
  double probability;  ///< after temperature, top-k and top-p; all add up to 1
};
/// An Error when no logit is finite or one is NaN or +infinity; -infinity means "never".
Result<std::vector<Candidate>> candidates(std::span<const float> logits, const SamplerSettings& settings);

/// One token; key_of({seed, purpose, position}) makes a key for each position.
Result<std::int32_t> sample_token(std::span<const float> logits, const SamplerSettings& settings,
                                  std::uint64_t key);

}  // namespace tessera
