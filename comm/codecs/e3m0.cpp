// Powers of two, E3M0 (1 sign, 3 exponent, no mantissa bits), as Streaming DiLoCo sends outer gradients
// (arXiv 2501.18512): 0 and 2^-6 .. 1 times a block's largest magnitude; the nearest, ties to the even code.
// |error| <= |x| / 3 or 2^-7 largest, whichever is larger.
#include "comm/codec_parts.h"

namespace tessera {
namespace {

class E3m0 final : public BlockCodec {
 public:
  E3m0(const BlockSettings& settings, const Context&)
      : BlockCodec("e3m0", 4, settings, codec_kernels().e3m0) {}
};

TESSERA_REGISTER(Codec, e3m0, E3m0, BlockSettings,
                 "half a byte a parameter and a scale per block: powers of two below the block's largest");

}  // namespace
}  // namespace tessera
