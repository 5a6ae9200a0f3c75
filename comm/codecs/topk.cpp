// The largest magnitudes alone: of every `chunk` consecutive values (the last chunk may be shorter), a share
// `density`, at least one. Of equal magnitudes the earlier goes first; what is not finite goes before all.
//
// Layout: with value_bits = 2 a codebook of four floats; then, for each chunk, the ascending positions of
// what it sends, in as many bits as a position in a chunk needs, and the values: as floats, or 2 bits each.
// Both are packed from the low end of every byte and begin at a byte. With 2 bits a value is its sign and
// whether its magnitude is above the mean magnitude of what the tensor sends; it decodes to the mean of the
// values that it shares both with. SparseLoCo's choice (arXiv 2508.15706) is a chunk of 4096, of which 64 are
// sent in 12 + 2 bits each: 0.219 bits a parameter.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "comm/codec_parts.h"

namespace tessera {
namespace {

constexpr std::int64_t most_positions = 65536;  // in a chunk: a position is of 16 bits here
constexpr std::size_t group_count = 4;          // of values, with 2 bits

struct TopkSettings : Settings {
  double density = 0.05;
  std::int64_t chunk = most_positions, value_bits = 32;
  void fields(FieldVisitor& f) override {
    f.field({"density", "topk: share of the values that is sent", {.min = 0, .max = 1, .min_is_open = true}},
            density);
    f.field({"chunk", "topk: consecutive values of which that share is taken; a position costs its bits",
             between(2, most_positions)},
            chunk);
    f.field({"value_bits",
             "topk: 32 sends values as they are, 2 as one of four means over the tensor (a codebook of 16 "
             "bytes)",
             between(2, 32)},
            value_bits);
  }
  std::vector<std::string> problems() const override {
    if (value_bits == 2 || value_bits == 32) return {};
    return {"codec.value_bits = " + std::to_string(value_bits) + " is neither 2 nor 32"};
  }
};

/// Positions of the `count` largest magnitudes, ascending.
std::vector<std::uint16_t> largest_of(std::span<const float> values, std::size_t count) {
  std::vector<std::uint64_t> keys(values.size());  // larger magnitudes, then earlier positions, are less
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &values[i], sizeof bits);
    keys[i] = static_cast<std::uint64_t>(~bits & 0x7fffffffu) << 16 | i;
  }
  std::nth_element(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(count - 1), keys.end());
  std::vector<std::uint16_t> positions(count);
  for (std::size_t i = 0; i < count; ++i) positions[i] = static_cast<std::uint16_t>(keys[i]);
  std::sort(positions.begin(), positions.end());
  return positions;
}

/// Whole numbers of so many bits each, from the low end of every byte.
class BitWriter {
 public:
  explicit BitWriter(std::byte* out) : out_(out) {}
  void put(std::uint32_t value, unsigned bits) {
    held_ |= static_cast<std::uint64_t>(value) << count_;
    for (count_ += bits; count_ >= 8; count_ -= 8, held_ >>= 8) *out_++ = static_cast<std::byte>(held_);
  }
  /// Fills up the byte; where the next one begins.
  std::byte* finish() {
    if (count_ > 0) put(0, 8 - count_);
    return out_;
  }

 private:
  std::byte* out_;
  std::uint64_t held_ = 0;
  unsigned count_ = 0;
};
class BitReader {
 public:
  explicit BitReader(const std::byte* in) : in_(in) {}
  std::uint32_t take(unsigned bits) {
    for (; count_ < bits; count_ += 8) held_ |= static_cast<std::uint64_t>(*in_++) << count_;
    const auto value = static_cast<std::uint32_t>(held_ & ((std::uint64_t{1} << bits) - 1));
    held_ >>= bits;
    count_ -= bits;
    return value;
  }

 private:
  const std::byte* in_;
  std::uint64_t held_ = 0;
  unsigned count_ = 0;
};

/// Four groups of values, by sign and magnitude, and the mean of each; 0 where there is none.
struct Codebook {
  double mean_magnitude = 0;
  float means[group_count] = {};

  explicit Codebook(const std::vector<float>& values) {
    double magnitudes = 0, sums[group_count] = {};
    std::size_t counts[group_count] = {};
    for (float value : values) magnitudes += std::abs(static_cast<double>(value));
    mean_magnitude = magnitudes / static_cast<double>(values.size());
    for (float value : values) {
      sums[code(value)] += static_cast<double>(value);
      ++counts[code(value)];
    }
    for (std::size_t group = 0; group < group_count; ++group) {
      if (counts[group] > 0)
        means[group] = static_cast<float>(sums[group] / static_cast<double>(counts[group]));
      if (!std::isfinite(magnitudes)) means[group] = std::numeric_limits<float>::quiet_NaN();
    }
  }
  std::uint32_t code(float value) const {
    return (value < 0 ? 2u : 0u) + (std::abs(static_cast<double>(value)) > mean_magnitude ? 1u : 0u);
  }
};

class Topk final : public Codec {
 public:
  Topk(const TopkSettings& settings, const Context&)
      : density_(settings.density),
        chunk_(static_cast<std::size_t>(settings.chunk)),
        position_bits_(static_cast<unsigned>(std::bit_width(chunk_ - 1))),
        value_bits_(static_cast<unsigned>(settings.value_bits)) {}

  std::size_t encoded_bytes(std::size_t elements) const override {
    const std::size_t codebook = has_codebook() && elements > 0 ? sizeof(Codebook::means) : 0;
    return codebook + elements / chunk_ * chunk_bytes(chunk_) + chunk_bytes(elements % chunk_);
  }

  void encode(std::span<const float> values, MutableBytes bytes) const override {
    TESSERA_CHECK_EQ(bytes.size(), encoded_bytes(values.size()));
    if (values.empty()) return;
    std::vector<std::vector<std::uint16_t>> positions;
    std::vector<float> sent;
    for (std::size_t at = 0; at < values.size(); at += chunk_) {
      const auto chunk = values.subspan(at, std::min(chunk_, values.size() - at));
      positions.push_back(largest_of(chunk, kept(chunk.size())));
      for (const std::uint16_t position : positions.back()) sent.push_back(chunk[position]);
    }
    std::byte* out = bytes.data();
    const Codebook book(sent);
    if (has_codebook()) {
      std::memcpy(out, book.means, sizeof book.means);
      out += sizeof book.means;
    }
    const float* value = sent.data();
    for (const std::vector<std::uint16_t>& chunk : positions) {
      BitWriter places(out);
      for (const std::uint16_t position : chunk) places.put(position, position_bits_);
      BitWriter codes(out = places.finish());
      for (std::size_t i = 0; i < chunk.size(); ++i, ++value)
        codes.put(has_codebook() ? book.code(*value) : std::bit_cast<std::uint32_t>(*value), value_bits_);
      out = codes.finish();
    }
  }

  Status decode(Bytes bytes, std::span<float> values) const override {
    TESSERA_TRY(check_encoded_size(*this, "topk", bytes, values.size()));
    if (values.empty()) return {};
    std::fill(values.begin(), values.end(), 0.0f);
    const std::byte* in = bytes.data();
    float means[group_count] = {};
    if (has_codebook()) {
      std::memcpy(means, in, sizeof means);
      in += sizeof means;
    }
    for (std::size_t at = 0; at < values.size(); at += chunk_) {
      const auto chunk = values.subspan(at, std::min(chunk_, values.size() - at));
      const std::size_t count = kept(chunk.size());
      BitReader places(in), codes(in + bytes_of(count, position_bits_));
      std::int64_t before = -1;
      for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t position = places.take(position_bits_), code = codes.take(value_bits_);
        if (position <= before || position >= chunk.size())
          return fail(ExitCode::failed, "topk: position ", position, " after ", before, " of ", chunk.size(),
                      " values");
        chunk[position] = has_codebook() ? means[code] : std::bit_cast<float>(code);
        before = position;
      }
      in += chunk_bytes(chunk.size());
    }
    return {};
  }

 private:
  static std::size_t bytes_of(std::size_t count, unsigned bits) { return (count * bits + 7) / 8; }
  bool has_codebook() const { return value_bits_ == 2; }
  std::size_t kept(std::size_t elements) const {
    return static_cast<std::size_t>(std::ceil(density_ * static_cast<double>(elements)));
  }
  std::size_t chunk_bytes(std::size_t elements) const {
    return bytes_of(kept(elements), position_bits_) + bytes_of(kept(elements), value_bits_);
  }

  double density_;
  std::size_t chunk_;
  unsigned position_bits_, value_bits_;
};

TESSERA_REGISTER(Codec, topk, Topk, TopkSettings,
                 "the largest magnitudes and their positions, the rest as zero; wants error feedback");

}  // namespace
}  // namespace tessera
