// The bundle format of all tensors at rest and on the wire (checkpoint shards, slot states, contributions):
// safetensors, as specified at github.com/huggingface/safetensors, so that every tool of the field reads our
// files.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/tensor.h"
#include "comm/blob.h"

namespace tessera {

inline constexpr std::size_t safetensors_header_cap = std::size_t{16}
                                                      << 20;  ///< bytes of JSON that are read at all
inline constexpr std::size_t safetensors_name_cap = 256;
inline constexpr std::size_t safetensors_rank_cap = 8;

/// 1..256 of letters, digits and . _ - / [ ] : + ; "__metadata__" is the format's own.
bool is_tensor_name(std::string_view name);

/// An official safetensors file: header sorted by name and padded so that the data starts at a multiple
/// of 64. Data lie in the order (element size, largest first; name), which keeps every tensor aligned for its
/// type. Equal input, equal bytes.
Buffer encode_safetensors(const TensorMap& tensors, const std::map<std::string, std::string>& metadata = {},
                          const std::function<Buffer(std::size_t)>& allocate = Buffer::allocate);
/// The same file and its digest, and those of the tensors if `digests` is given, in one pass over the
/// tensors.
Blob safetensors_blob(const TensorMap& tensors,
                      const std::function<Buffer(std::size_t)>& allocate = Buffer::allocate,
                      TensorDigests* digests = nullptr);
/// The same file in parts, which share the tensors' memory: header first.
std::vector<Buffer> safetensors_parts(const TensorMap& tensors,
                                      const std::map<std::string, std::string>& metadata = {});

struct SafetensorsFile {
  TensorMap
      tensors;  ///< views that keep the buffer alive; a tensor that is not aligned for its type is a copy
  std::map<std::string, std::string> metadata;
};
/// Reads a file that anybody may have made. `where` names it in the refusal (a path, a slot), which says what
/// is wrong in which tensor. Refused: oversized or malformed headers, names as above, repeated keys, unknown
/// types, rank above 8, sizes that overflow or do not match the shape, offsets that leave gaps, overlap or do
/// not cover the file.
Result<SafetensorsFile> decode_safetensors(Buffer file, std::string_view where = "safetensors");

}  // namespace tessera
