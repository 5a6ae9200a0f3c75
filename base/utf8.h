// UTF-8 as texts from outside are checked for it.
#pragma once
#include <cstddef>
#include <string_view>

namespace tessera {

/// Bytes of the well-formed character (RFC 3629) that a text, which is not empty, begins with; 0 where it
/// begins with none.
std::size_t utf8_length(std::string_view text);

}  // namespace tessera
