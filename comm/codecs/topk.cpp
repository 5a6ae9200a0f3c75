// The largest magnitudes alone, with their exact values: of every 65536 consecutive values (the last may be
// fewer), a share `density`, at least one. Layout: for each such chunk its indices, ascending, 2 bytes each,
// then their values, 4 bytes each. Of equal magnitudes the earlier goes first; what is not finite goes before
// all.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "comm/codec_parts.h"

namespace tessera {
namespace {

constexpr std::size_t chunk_size = 65536;
constexpr std::size_t entry_bytes = sizeof(std::uint16_t) + sizeof(float);

struct TopkSettings : Settings {
  double density = 0.05;
  void fields(FieldVisitor& f) override {
    f.field({"density",
             "share of the values that is sent, 6 bytes each",
             {.min = 0, .max = 1, .min_is_open = true}},
            density);
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

class Topk final : public Codec {
 public:
  Topk(const TopkSettings& settings, const Context&) : density_(settings.density) {}
  std::size_t encoded_bytes(std::size_t elements) const override {
    const std::size_t chunks = elements / chunk_size;
    return entry_bytes * (chunks * kept(chunk_size) + kept(elements % chunk_size));
  }

  void encode(std::span<const float> values, MutableBytes bytes) const override {
    TESSERA_CHECK_EQ(bytes.size(), encoded_bytes(values.size()));
    std::byte* out = bytes.data();
    for (std::size_t at = 0; at < values.size(); at += chunk_size) {
      const auto chunk = values.subspan(at, std::min(chunk_size, values.size() - at));
      const std::vector<std::uint16_t> positions = largest_of(chunk, kept(chunk.size()));
      std::memcpy(out, positions.data(), positions.size() * sizeof positions[0]);
      out += positions.size() * sizeof positions[0];
      for (const std::uint16_t position : positions) {
        std::memcpy(out, &chunk[position], sizeof(float));
        out += sizeof(float);
      }
    }
  }

  Status decode(Bytes bytes, std::span<float> values) const override {
    TESSERA_TRY(check_encoded_size(*this, "topk", bytes, values.size()));
    std::fill(values.begin(), values.end(), 0.0f);
    const std::byte* in = bytes.data();
    for (std::size_t at = 0; at < values.size(); at += chunk_size) {
      const auto chunk = values.subspan(at, std::min(chunk_size, values.size() - at));
      const std::size_t count = kept(chunk.size());
      const std::byte* numbers = in + count * sizeof(std::uint16_t);
      std::int64_t before = -1;
      for (std::size_t i = 0; i < count; ++i) {
        std::uint16_t position = 0;
        std::memcpy(&position, in + i * sizeof position, sizeof position);
        if (position <= before || position >= chunk.size())
          return fail(ExitCode::failed, "topk: position ", position, " after ", before, " of ", chunk.size(),
                      " values");
        std::memcpy(&chunk[position], numbers + i * sizeof(float), sizeof(float));
        before = position;
      }
      in = numbers + count * sizeof(float);
    }
    return {};
  }

 private:
  std::size_t kept(std::size_t elements) const {
    return static_cast<std::size_t>(std::ceil(density_ * static_cast<double>(elements)));
  }

  double density_;
};

TESSERA_REGISTER(Codec, topk, Topk, TopkSettings,
                 "6 bytes for each of the largest magnitudes, the rest as zero; wants error feedback");

}  // namespace
}  // namespace tessera
