// IEEE half precision, rounded to nearest even: |error| <= 2^-11 |x|, or 2^-25 below 2^-14. What rounds
// beyond 65504 becomes infinite.
#include "comm/codec_parts.h"

namespace tessera {
namespace {

class Fp16 final : public HalfCodec {
 public:
  Fp16(const NoSettings&, const Context&)
      : HalfCodec("fp16", codec_kernels().to_fp16, codec_kernels().from_fp16) {}
};

TESSERA_REGISTER(Codec, fp16, Fp16, NoSettings,
                 "2 bytes a parameter: IEEE halves, of magnitudes below 65520");

}  // namespace
}  // namespace tessera
