// Changes of parameters on the wire, where a codec rounds them: contributions carry the encoded change of
// each piece, publications the encoded update of a version on the one before it. Both ends work with what the
// bytes decode to, so all copies stay bit-identical.
#pragma once
#include <memory>
#include <span>
#include <string>

#include "base/error.h"
#include "base/params.h"
#include "base/tensor.h"
#include "comm/codec.h"

namespace tessera {

/// How one direction encodes.
struct Wire {
  std::shared_ptr<const Codec> codec;  ///< null: parameters travel as they are, in fp32
  /// Error feedback (Seide et al. 2014; arXiv 1901.09847): this share of what the encoding left out is added
  /// to the next change. 0: none is kept.
  double feedback = 0;
  /// False: the parameters themselves travel, as in fp32.
  bool rounds() const { return codec != nullptr && !codec->carries_values(); }
  bool keeps_residual() const { return rounds() && feedback > 0; }
};

/// Encodes `change` as U8 [bytes] and replaces it by what the bytes decode to. With error feedback x = change
/// + feedback * residual is encoded, and the residual becomes x - decoded, each rounded to fp32 once;
/// without, the residual is empty.
HostTensor encode_change(const Wire& wire, std::span<float> change, std::span<float> residual);
/// Error: not U8 [encoded_bytes(elements)], or the codec refuses it; `name` says of what.
Status decode_change(const Codec& codec, const std::string& name, const HostTensor& encoded,
                     std::span<float> change);

/// What a slot brings, by piece name: the encoded change from `start` (parameters, in pieces that hold those;
/// null: the pieces are changes themselves, as gradients are). `residuals` by piece name are made, used and
/// renewed where the wire keeps them.
TensorMap encode_pieces(const Wire& wire, const TensorMap& pieces, const TensorMap* start,
                        TensorMap& residuals);
/// The reverse, in place: the pieces of `expected` among `tensors` become F32 of their shapes. What else is
/// there stays. Error: as decode_change.
Status decode_pieces(const Wire& wire, const RowSet& expected, const std::vector<ParamSpec>& specs,
                     TensorMap& tensors);

/// The update from `base` to `theta` (F32 parameters, or pieces of them that hold all of each range) in the
/// rows given, by piece name, encoded; `theta` becomes base + decoded there. `residuals`: of the same, where
/// the wire keeps them.
TensorMap encode_update(const Wire& wire, const RowSet& rows, const TensorMap& base, TensorMap& theta,
                        const TensorMap& residuals);
/// The file of parameters that an update (a file of encode_update's tensors, and of F32 ones that replace or
/// join those of the base by their names) makes of a base file. Error: damaged, or not an update of this
/// base.
Result<Buffer> apply_update(const Wire& wire, const Buffer& base, const Buffer& update);

}  // namespace tessera
