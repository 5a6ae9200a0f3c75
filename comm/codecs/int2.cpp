// Four levels, -1.5, -0.5, 0.5 and 1.5 times a block's root mean square, which is near the best uniform
// choice for normal values. |error| <= scale / 2 up to 2 scale, what is larger becomes 1.5 scale: made for
// error feedback.
#include "comm/codec_parts.h"

namespace tessera {
namespace {

class Int2 final : public BlockCodec {
 public:
  Int2(const BlockSettings& settings, const Context&)
      : BlockCodec("int2", 2, settings, codec_kernels().int2) {}
};

TESSERA_REGISTER(Codec, int2, Int2, BlockSettings,
                 "a quarter of a byte a parameter and a scale per block: four levels around the root mean "
                 "square; wants error feedback");

}  // namespace
}  // namespace tessera
