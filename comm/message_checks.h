// What a well-formed message may say: bounds of numbers, lengths and characters, independent of the wire
// form.
#pragma once
#include <string>
#include <string_view>

#include "comm/messages.h"

namespace tessera {

/// Limits of texts in bytes and of lists in entries; frames are bounded besides (comm/message_codec.h).
struct MessageLimits {
  static constexpr std::size_t name = 256, line = 1024, reason = 4096, recipe = 512 << 10;
  static constexpr std::size_t held = 4096, heads = 4096, params = 1 << 16, ranges = 1 << 16;
  static constexpr std::int32_t slots = 1 << 20;
  static constexpr std::uint64_t blob = 1ull << 42;
};

/// A word of drop::all that says what is wrong, or nullptr. Sums of losses and norms may be infinite or NaN:
/// a diverged slot has to be able to say so.
const char* problem_of(const Message& message);

/// The message with its free text (reasons, host, build, numerics, rejected tensor) cut to the limits and
/// cleaned, since what went wrong somewhere may be told in any bytes and has to arrive.
Message tidied(Message message);

enum class Text { line, lines };  ///< lines: may have newlines and tabs
/// Valid UTF-8 without control characters, at most `limit` bytes.
bool is_clean_text(std::string_view text, std::size_t limit, Text kind);
/// The nearest text that is_clean_text accepts: cut at a character, every bad byte replaced by '?'.
std::string clean_text(std::string_view text, std::size_t limit, Text kind);

}  // namespace tessera
