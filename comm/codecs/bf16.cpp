// The upper half of a float, rounded to nearest even: |error| <= 2^-9 |x|, down to denormals' own spacing.
// Infinities stay, what rounds beyond the largest becomes one.
#include <cstring>

#include "comm/codec_parts.h"

namespace tessera {
namespace {

class Bf16 final : public Codec {
 public:
  Bf16(const NoSettings&, const Context&) {}
  std::size_t encoded_bytes(std::size_t elements) const override { return elements * 2; }

  void encode(std::span<const float> values, MutableBytes bytes) const override {
    TESSERA_CHECK_EQ(bytes.size(), encoded_bytes(values.size()));
    through_halves(values.size(), [&](std::size_t at, std::size_t count, std::uint16_t* halves) {
      codec_kernels().to_bf16(values.data() + at, static_cast<std::int64_t>(count), halves);
      std::memcpy(bytes.data() + 2 * at, halves, 2 * count);
    });
  }
  Status decode(Bytes bytes, std::span<float> values) const override {
    TESSERA_TRY(check_encoded_size(*this, "bf16", bytes, values.size()));
    through_halves(values.size(), [&](std::size_t at, std::size_t count, std::uint16_t* halves) {
      std::memcpy(halves, bytes.data() + 2 * at, 2 * count);
      codec_kernels().from_bf16(halves, static_cast<std::int64_t>(count), values.data() + at);
    });
    return {};
  }
};

TESSERA_REGISTER(Codec, bf16, Bf16, NoSettings, "2 bytes a parameter: the upper half of a float");

}  // namespace
}  // namespace tessera
