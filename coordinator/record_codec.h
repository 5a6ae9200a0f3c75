// Log records as JSON text: what a person can read in the log with any tool, and what a restarted coordinator
// reads back.
#pragma once
#include <string>
#include <string_view>

#include "base/error.h"
#include "coordinator/records.h"

namespace tessera {

/// The type word of a record in the log: its place in the variant, so new kinds go to the end.
std::uint32_t record_type(const Record& record);
/// "open", "lease", "staged", ...: for people.
const char* record_name(const Record& record);
std::string encode_record(const Record& record);
/// Error (storage): text that is no record of this type.
Result<Record> decode_record(std::uint32_t type, std::string_view text);

}  // namespace tessera
