// How well a model predicts text, from sums of negative log-likelihood: perplexity per unit and per word,
// bits per byte. Sums are additive over batches, slots and processes; only the ends divide. Torch-free.
//
//   perplexity(n) = exp(nats / n),   bits per byte = nats / (ln 2 * bytes)
//
// Per word and per byte do not depend on the tokenizer, so models with different vocabularies can be compared
// by them (Mielke et al., "Can you compare perplexity across different segmentations?", 2019).
#pragma once

namespace tessera {

struct TextScore {
  double nats = 0;   ///< sum over targets of -ln p(target)
  double units = 0;  ///< targets
  double bytes = 0;  ///< of the text behind the targets
  double words = 0;  ///< of the text behind the targets

  TextScore& operator+=(const TextScore& other);
  /// Each is NaN where its denominator is 0, and infinite where the exponent is too large.
  double loss() const;        ///< nats per unit
  double perplexity() const;  ///< per unit
  double perplexity_per_word() const;
  double bits_per_byte() const;
};

}  // namespace tessera
