// Messages to bytes and back. decode() is the only door for bytes from outside: whatever passes it is
// well-formed and within limits; whatever does not is named by one word, so that drops can be counted by
// reason (comm/drop_reasons.h).
#pragma once
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/tensor.h"
#include "comm/messages.h"
#include "comm/transport/bulk_frames.h"

namespace tessera {

inline constexpr std::size_t max_frame_bytes = 64 << 10;  ///< of every frame but two
inline constexpr std::size_t max_large_frame_bytes =
    1 << 20;  ///< Welcome carries a recipe, Grant the rows of a whole model

using Content = std::variant<Message, ChunkRequest, ChunkHeader>;
struct Decoded {
  Header header;
  Content content;
};

/// Free text (reasons, host, build, numerics) is cut to its limit and cleaned of bytes that are not printable
/// UTF-8; any other value that decode() would refuse is a bug of the sender and aborts.
std::vector<std::byte> encode(const Header& header, const Message& message);
std::vector<std::byte> encode(const ChunkRequest& request);
std::vector<std::byte> encode(const ChunkHeader& header);

/// Needs no alignment. Never throws. The Error's message is exactly one word of drop::all.
Result<Decoded> decode(Bytes frame);

}  // namespace tessera
