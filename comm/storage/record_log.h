// The write-ahead log: typed records, appended in order and replayed after a crash. What a record means is
// the writer's affair (the coordinator's are JSON text); this file promises that a replay gives a prefix of
// what was appended, and all of it that was acknowledged.
//
// On disk: segments "NNNNNNNNNNNN.log", named by their first lsn, each a sequence of frames, little endian:
//   magic u32 | payload bytes u32 | type u32 | zero u32 | lsn u64 | epoch u64 | payload | xxh3-64 of all
//   before it u64
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "comm/storage/file_system.h"

namespace tessera {

struct LogRecord {
  std::uint64_t lsn = 0;  ///< 1, 2, 3... without gaps
  Epoch epoch;            ///< of the coordinator that wrote it; never falls
  std::uint32_t type = 0;
  std::string payload;
  auto operator<=>(const LogRecord&) const = default;
};

/// What lies in a log folder. A bad frame that nothing follows is a torn tail: the write was cut by a crash
/// and never acknowledged. A bad frame before good ones is damage, and refused with file and offset.
struct LogReplay {
  std::vector<LogRecord> records;
  Path last_segment;             ///< empty: there is none yet
  std::uint64_t good_bytes = 0;  ///< of the last segment
  std::uint64_t torn_bytes = 0;  ///< after them
  std::string note;              ///< says in words what was torn; empty when nothing was
};
/// Reads a log without changing it (it may be somebody else's, still growing).
Result<LogReplay> replay_log(const Path& folder, const FileSystem& files = disk());

struct LogSettings {
  std::uint64_t segment_bytes = std::uint64_t{64} << 20;  ///< a new segment begins after so many
};

struct OpenedLog;

class RecordLog {
 public:
  static constexpr std::size_t max_payload = std::size_t{16} << 20;

  /// Replays the folder (made when missing), cuts a torn tail and continues behind it. Hold the run
  /// directory's lock.
  static Result<OpenedLog> open(const Path& folder, Epoch epoch, LogSettings settings = {},
                                FileSystem& files = disk());
  /// Appends one record and returns its lsn once it is as durable as asked (with `machine`, all records
  /// before it too). After a failure nobody knows what is on the disk: this log refuses every further append,
  /// reopen it.
  Result<std::uint64_t> append(std::uint32_t type, std::string_view payload, Durability durability);
  std::uint64_t next_lsn() const { return next_lsn_; }

 private:
  RecordLog(Path folder, Epoch epoch, LogSettings settings, FileSystem& files);
  Status write(const std::vector<std::byte>& frame, Durability durability);
  Status start_segment();
  Status sync();

  Path folder_;
  Epoch epoch_;
  LogSettings settings_;
  FileSystem* files_;
  std::unique_ptr<AppendFile> segment_;  ///< null until the next append starts one
  std::uint64_t segment_size_ = 0;
  std::uint64_t next_lsn_ = 1;
  bool unsynced_data_ = false;
  bool unsynced_name_ = false;  ///< the segment's entry in the folder
  std::string failure_;         ///< why no further append is taken
};

struct OpenedLog {
  RecordLog log;
  LogReplay replay;  ///< what was there before
};

}  // namespace tessera
