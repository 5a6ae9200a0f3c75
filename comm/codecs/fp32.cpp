// The identity: 4 little-endian bytes a float, bit for bit (NaN payloads too). It carries the values, so
// merges are exact.
#include <bit>
#include <cstring>

#include "comm/codec_parts.h"

namespace tessera {
namespace {
static_assert(std::endian::native == std::endian::little, "fp32 rows travel as little-endian memory");

class Fp32 final : public Codec {
 public:
  Fp32(const NoSettings&, const Context&) {}
  bool carries_values() const override { return true; }
  std::size_t encoded_bytes(std::size_t elements) const override { return elements * sizeof(float); }
  void encode(std::span<const float> values, MutableBytes bytes) const override {
    TESSERA_CHECK_EQ(bytes.size(), values.size_bytes());
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  }

  Status decode(Bytes bytes, std::span<float> values) const override {
    TESSERA_TRY(check_encoded_size(*this, "fp32", bytes, values.size()));
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return {};
  }
};

TESSERA_REGISTER(Codec, fp32, Fp32, NoSettings,
                 "4 bytes a parameter, exact: carries the parameters themselves");

}  // namespace
}  // namespace tessera
