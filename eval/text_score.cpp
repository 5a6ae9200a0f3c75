#include "eval/text_score.h"

#include <cmath>
#include <limits>
#include <numbers>

namespace tessera {
namespace {

double over(double sum, double count) {
  return count > 0 ? sum / count : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

TextScore& TextScore::operator+=(const TextScore& other) {
  nats += other.nats;
  units += other.units;
  bytes += other.bytes;
  words += other.words;
  return *this;
}

double TextScore::loss() const {
  return over(nats, units);
}
double TextScore::perplexity() const {
  return std::exp(over(nats, units));
}
double TextScore::perplexity_per_word() const {
  return std::exp(over(nats, words));
}
double TextScore::bits_per_byte() const {
  return over(nats, bytes) / std::numbers::ln2;
}

}  // namespace tessera
