// Floats of 8 bits, e4m3 (OCP OFP8: bias 7, largest 448, no infinity), times a block's scale = largest
// magnitude / 448, rounded to nearest even. |error| <= 2^-4 |x| or 2^-10 scale, whichever is larger.
#include "comm/codec_parts.h"

namespace tessera {
namespace {

class Fp8 final : public BlockCodec {
 public:
  Fp8(const BlockSettings& settings, const Context&) : BlockCodec("fp8", 8, settings, codec_kernels().fp8) {}
};

TESSERA_REGISTER(Codec, fp8, Fp8, BlockSettings,
                 "1 byte a parameter and a scale per block: e4m3 floats, the block's largest at 448");

}  // namespace
}  // namespace tessera
