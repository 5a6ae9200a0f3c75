// Why transports drop what arrives, as a small bounded set of words: keys of TransportCounters::dropped and
// values of a metric's label.
#pragma once
#include <array>

namespace tessera::drop {

// refusals of decode()
inline constexpr const char* too_large = "too_large";
inline constexpr const char* ragged = "ragged";  ///< empty, or not a multiple of 8 bytes
inline constexpr const char* malformed =
    "malformed";  ///< not one whole Cap'n Proto message within the reader's limits
inline constexpr const char* protocol = "protocol";  ///< another protocol number
inline constexpr const char* kind = "kind";          ///< unknown message
inline constexpr const char* text =
    "text";  ///< a name or text too long or with characters that have no place there
inline constexpr const char* count = "count";    ///< a list too long
inline constexpr const char* number = "number";  ///< negative or not finite where it must not be
inline constexpr const char* range = "range";    ///< rows or samples reversed, overlapping or out of order
// what transports see
inline constexpr const char* handshake = "handshake";  ///< a connection that does not speak ZMTP
inline constexpr const char* anonymous = "anonymous";  ///< a peer without a 128-bit routing id
inline constexpr const char* parts = "parts";          ///< not the number of message parts that belongs there
inline constexpr const char* wrong_path = "wrong_path";  ///< a bulk frame on the control path or the reverse
inline constexpr const char* no_route = "no_route";      ///< out: the peer is gone
inline constexpr const char* peer_busy = "peer_busy";    ///< out: the peer does not read
inline constexpr const char* unexpected = "unexpected";  ///< a chunk that nobody asked for (any more)
inline constexpr const char* checksum = "checksum";      ///< a damaged chunk; it was asked for again
inline constexpr const char* digest = "digest";          ///< a whole blob that is not what its reference says
inline constexpr const char* shared_path =
    "shared_path";  ///< a shared-memory path outside the folder, or not a plain file

inline constexpr std::array all = {
    too_large, ragged, malformed,  protocol, kind,      text,       count,    number, range,      handshake,
    anonymous, parts,  wrong_path, no_route, peer_busy, unexpected, checksum, digest, shared_path};

}  // namespace tessera::drop
