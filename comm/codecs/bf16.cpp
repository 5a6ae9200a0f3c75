// The upper half of a float, rounded to nearest even: |error| <= 2^-9 |x|, down to denormals' own spacing.
// Infinities stay, what rounds beyond the largest becomes one.
#include "comm/codec_parts.h"

namespace tessera {
namespace {

class Bf16 final : public HalfCodec {
 public:
  Bf16(const NoSettings&, const Context&)
      : HalfCodec("bf16", codec_kernels().to_bf16, codec_kernels().from_bf16) {}
};

TESSERA_REGISTER(Codec, bf16, Bf16, NoSettings, "2 bytes a parameter: the upper half of a float");

}  // namespace
}  // namespace tessera
