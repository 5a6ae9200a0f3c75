// Whole numbers of 4 bits: a block's value is q times its scale, q in [-7, 7], scale = largest magnitude / 7,
// q rounded to nearest even. |error| <= scale / 2.
#include "comm/codec_parts.h"

namespace tessera {
namespace {

class Int4 final : public BlockCodec {
 public:
  Int4(const BlockSettings& settings, const Context&)
      : BlockCodec("int4", 4, settings, codec_kernels().int4) {}
};

TESSERA_REGISTER(Codec, int4, Int4, BlockSettings,
                 "half a byte a parameter and a scale per block: multiples of the block's largest / 7");

}  // namespace
}  // namespace tessera
