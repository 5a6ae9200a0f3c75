// Whole numbers of 8 bits: a block's value is q times its scale, q in [-127, 127], scale = largest magnitude
// / 127, q rounded to nearest even (torchft's row-wise int8, per block instead of per row). |error| <= scale
// / 2.
#include "comm/codec_parts.h"

namespace tessera {
namespace {

class Int8 final : public BlockCodec {
 public:
  Int8(const BlockSettings& settings, const Context&)
      : BlockCodec("int8", 8, settings, codec_kernels().int8) {}
};

TESSERA_REGISTER(Codec, int8, Int8, BlockSettings,
                 "1 byte a parameter and a scale per block: multiples of the block's largest / 127");

}  // namespace
}  // namespace tessera
