// 8 bits and a codebook, as INTELLECT-1 sends outer gradients (arXiv 2412.01152): values are cut to mean +- 6
// standard deviations of the tensor and sorted into 256 equal bins, each of which stands for the mean of its
// values. Layout: 256 fp32 means, then a byte a value. |error| <= 12 deviations / 256 within the range.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "comm/codec_parts.h"

namespace tessera {
namespace {

constexpr int bin_count = 256;

/// Numbers and sums of the positions in each bin. In whole numbers, so that their order does not matter; both
/// in one word, of which the number has the upper 24 bits. Four tables side by side, or an addition would
/// often wait for the one before it.
class BinSums {
 public:
  /// Positions below 2^24, at most 4096.
  void add(std::span<const std::uint32_t> positions) {
    std::size_t i = 0;
    for (; i + ways <= positions.size(); i += ways) {
#pragma GCC unroll 4
      for (std::size_t way = 0; way < ways; ++way)
        words_[way][positions[i + way] >> 16] += one + positions[i + way];
    }
    for (; i < positions.size(); ++i) words_[0][positions[i] >> 16] += one + positions[i];
    if (++added_ == 8) unpack();  // 2^15 positions: their sums stay below 2^39
  }
  void unpack() {
    added_ = 0;
    for (auto& table : words_) {
      for (int bin = 0; bin < bin_count; ++bin) {
        const std::uint64_t word = std::exchange(table[bin], 0);
        counts_[bin] += word >> 40;
        sums_[bin] += word & (one - 1);
      }
    }
  }
  /// The mean position in a bin, in bins; nothing where it is empty.
  double mean(int bin) const {
    return counts_[bin] == 0 ? 0
                             : static_cast<double>(sums_[bin]) / static_cast<double>(counts_[bin]) / 65536;
  }
  bool is_empty(int bin) const {
    return counts_[bin] == 0;
  }

 private:
  static constexpr std::size_t ways = 4;
  static constexpr std::uint64_t one = std::uint64_t{1} << 40;
  std::uint64_t words_[ways][bin_count] = {};
  std::uint64_t counts_[bin_count] = {}, sums_[bin_count] = {};
  int added_ = 0;
};

/// Codes of finite values that are not all equal, and what each stands for; 0 for a bin without values.
void sort_into_bins(std::span<const float> values, Moments moments, std::uint8_t* codes, float* means) {
  const double width = 12 * moments.deviation / bin_count, low = moments.mean - 6 * moments.deviation;
  constexpr std::size_t stretch = 4096;  // stays in the nearest cache
  std::uint32_t positions[stretch];
  BinSums sums;
  for (std::size_t at = 0; at < values.size(); at += stretch) {
    const std::size_t count = std::min(stretch, values.size() - at);
    codec_kernels().bins(values.data() + at, static_cast<std::int64_t>(count), static_cast<float>(low),
                         static_cast<float>(65536 / width), positions, codes + at);
    sums.add({positions, count});
  }
  sums.unpack();
  for (int bin = 0; bin < bin_count; ++bin) {
    if (!sums.is_empty(bin)) means[bin] = static_cast<float>(low + (sums.mean(bin) + 0.5 / 65536) * width);
  }
}

class Int8Sigma final : public Codec {
 public:
  Int8Sigma(const NoSettings&, const Context&) {}
  std::size_t encoded_bytes(std::size_t elements) const override {
    return elements == 0 ? 0 : bin_count * sizeof(float) + elements;
  }

  void encode(std::span<const float> values, MutableBytes bytes) const override {
    TESSERA_CHECK_EQ(bytes.size(), encoded_bytes(values.size()));
    if (values.empty()) return;
    const CodecKernels& kernels = codec_kernels();
    const auto count = static_cast<std::int64_t>(values.size());
    auto* const codes = reinterpret_cast<std::uint8_t*>(bytes.data() + bin_count * sizeof(float));
    float means[bin_count] = {};
    const Moments moments = kernels.moments(values.data(), count);
    // Values that are all but equal have one code: a float cannot divide by their distances.
    const bool equal = moments.deviation < 1e-6 * std::abs(moments.mean) || moments.deviation < 0x1p-100;
    if (!std::isfinite(moments.mean) || !std::isfinite(moments.deviation)) {
      for (float& mean : means) mean = std::numeric_limits<float>::quiet_NaN();
      std::memset(codes, 0, values.size());
    } else if (equal) {
      means[0] = static_cast<float>(moments.mean);
      std::memset(codes, 0, values.size());
    } else {
      sort_into_bins(values, moments, codes, means);
    }
    std::memcpy(bytes.data(), means, sizeof means);
  }

  Status decode(Bytes bytes, std::span<float> values) const override {
    TESSERA_TRY(check_encoded_size(*this, "int8_sigma", bytes, values.size()));
    if (values.empty()) return {};
    float means[bin_count];
    std::memcpy(means, bytes.data(), sizeof means);
    codec_kernels().look_up(reinterpret_cast<const std::uint8_t*>(bytes.data() + sizeof means),
                            static_cast<std::int64_t>(values.size()), means, values.data());
    return {};
  }
};

TESSERA_REGISTER(
    Codec, int8_sigma, Int8Sigma, NoSettings,
    "1 byte a parameter and a codebook of 1 KiB per tensor: the means of 256 bins over 6 standard "
    "deviations on either side");

}  // namespace
}  // namespace tessera
