#include "comm/storage/record_log.h"

#include <cstdio>
#include <cstring>
#include <optional>

#include "comm/hash.h"
#include "comm/storage/files.h"

namespace tessera {
namespace {

struct FrameHeader {
  std::uint32_t magic = 0;
  std::uint32_t payload_bytes = 0;
  std::uint32_t type = 0;
  std::uint32_t zero = 0;
  std::uint64_t lsn = 0;
  std::uint64_t epoch = 0;
};
static_assert(sizeof(FrameHeader) == 32);
constexpr std::uint32_t frame_magic = 0x4c577354;  // "TsWL"
constexpr std::size_t checksum_bytes = 8;
constexpr std::string_view segment_suffix = ".log";
constexpr std::size_t lsn_digits = 12;

std::vector<std::byte> frame_of(const LogRecord& record) {
  const FrameHeader header{frame_magic, static_cast<std::uint32_t>(record.payload.size()),
                           record.type, 0,
                           record.lsn,  record.epoch.value};
  const std::size_t body = sizeof header + record.payload.size();
  std::vector<std::byte> frame(body + checksum_bytes);
  std::memcpy(frame.data(), &header, sizeof header);
  std::memcpy(frame.data() + sizeof header, record.payload.data(), record.payload.size());
  const std::uint64_t checksum = checksum64(Bytes(frame).first(body));
  std::memcpy(frame.data() + body, &checksum, checksum_bytes);
  return frame;
}

struct Frame {
  LogRecord record;
  std::size_t bytes = 0;
};

/// The frame that begins at `offset`, or why there is none.
std::optional<Frame> frame_at(Bytes segment, std::size_t offset, std::string& why) {
  const Bytes rest = segment.subspan(offset);
  FrameHeader header;
  if (rest.size() < sizeof header + checksum_bytes) return why = "it is cut short", std::nullopt;
  std::memcpy(&header, rest.data(), sizeof header);
  if (header.magic != frame_magic || header.zero != 0) return why = "no record begins there", std::nullopt;
  const std::size_t body = sizeof header + std::size_t{header.payload_bytes};
  if (header.payload_bytes > RecordLog::max_payload || rest.size() < body + checksum_bytes) {
    return why = "it is cut short", std::nullopt;
  }
  std::uint64_t checksum = 0;
  std::memcpy(&checksum, rest.data() + body, checksum_bytes);
  if (checksum != checksum64(rest.first(body))) return why = "its checksum does not match", std::nullopt;
  Frame frame{{header.lsn, Epoch{header.epoch}, header.type, {}}, body + checksum_bytes};
  frame.record.payload.assign(reinterpret_cast<const char*>(rest.data()) + sizeof header,
                              header.payload_bytes);
  return frame;
}

/// Whether a good frame begins anywhere after `offset`: then what is bad at `offset` was damaged, not torn.
bool good_frame_after(Bytes segment, std::size_t offset) {
  std::string ignored;
  for (std::size_t at = offset + 1; at + sizeof(FrameHeader) <= segment.size(); ++at) {
    std::uint32_t magic = 0;
    std::memcpy(&magic, segment.data() + at, sizeof magic);
    if (magic == frame_magic && frame_at(segment, at, ignored)) return true;
  }
  return false;
}

Path segment_path(const Path& folder, std::uint64_t first_lsn) {
  char name[32];
  std::snprintf(name, sizeof name, "%0*llu.log", static_cast<int>(lsn_digits),
                static_cast<unsigned long long>(first_lsn));
  return folder / name;
}

bool is_segment_name(const std::string& name) {
  return name.size() == lsn_digits + segment_suffix.size() && name.ends_with(segment_suffix) &&
         name.find_first_not_of("0123456789") == lsn_digits;
}

/// Adds a segment's records. A torn tail is noted where it may be: at the end of the last segment.
Status read_segment(const Path& path, Bytes segment, bool is_last, LogReplay& replay) {
  std::size_t offset = 0;
  std::string why;
  while (offset < segment.size()) {
    std::optional<Frame> frame = frame_at(segment, offset, why);
    if (!frame && is_last && !good_frame_after(segment, offset)) {
      replay.torn_bytes = segment.size() - offset;
      replay.note =
          detail::describe("the last record of ", path.string(), " at byte ", offset, " was torn (", why,
                           "): ", replay.torn_bytes, " bytes that nobody was told about are dropped");
      break;
    }
    const LogRecord* previous = replay.records.empty() ? nullptr : &replay.records.back();
    if (frame && frame->record.lsn != (previous ? previous->lsn : 0) + 1) {
      why = detail::describe("it is number ", frame->record.lsn, " after number ",
                             previous ? previous->lsn : 0);
      frame.reset();
    } else if (frame && previous && frame->record.epoch < previous->epoch) {
      why = detail::describe("it is of epoch ", frame->record.epoch, " after epoch ", previous->epoch);
      frame.reset();
    }
    if (!frame) {
      return fail(ExitCode::storage, "log ", path.string(), " is damaged: the record at byte ", offset,
                  " is bad (", why,
                  ") and others follow it; restore the file, or go on from a copy of the run");
    }
    offset += frame->bytes;
    replay.records.push_back(std::move(frame->record));
  }
  replay.good_bytes = offset;
  return {};
}

}  // namespace

Result<LogReplay> replay_log(const Path& folder, const FileSystem& files) {
  LogReplay replay;
  if (!files.exists(folder)) return replay;
  TESSERA_ASSIGN(const std::vector<FolderEntry> entries, files.list_folder(folder));
  std::vector<std::string> segments;
  for (const FolderEntry& entry : entries) {
    if (is_segment_name(entry.name)) segments.push_back(entry.name);
  }
  for (const std::string& name : segments) {
    const Path path = folder / name;
    const bool is_last = &name == &segments.back();
    TESSERA_ASSIGN(const Buffer segment, files.read_file(path, default_read_cap));
    const std::uint64_t expected = replay.records.empty() ? 1 : replay.records.back().lsn + 1;
    if (path != segment_path(folder, expected)) {
      return fail(ExitCode::storage, "log ", folder.string(), " is damaged: after record ", expected - 1,
                  " comes ", name, ", ", segment_path(folder, expected).filename().string(), " is missing");
    }
    TESSERA_TRY(read_segment(path, segment.bytes, is_last, replay));
    replay.last_segment = path;
  }
  return replay;
}

RecordLog::RecordLog(Path folder, Epoch epoch, LogSettings settings, FileSystem& files)
    : folder_(std::move(folder)), epoch_(epoch), settings_(settings), files_(&files) {}

Result<OpenedLog> RecordLog::open(const Path& folder, Epoch epoch, LogSettings settings, FileSystem& files) {
  TESSERA_TRY(files.make_folder(folder));
  TESSERA_TRY(files.sync_folder(folder.parent_path()));  // the log's own name
  TESSERA_ASSIGN(LogReplay replay, replay_log(folder, files));
  RecordLog log(folder, epoch, settings, files);
  if (!replay.records.empty()) {
    const LogRecord& last = replay.records.back();
    if (last.epoch > epoch) {
      return fail(ExitCode::fenced, "log ", folder.string(), " was continued by epoch ", last.epoch,
                  ", mine is ", epoch);
    }
    log.next_lsn_ = last.lsn + 1;
  }
  if (!replay.last_segment.empty()) {
    if (replay.torn_bytes > 0) TESSERA_TRY(files.truncate(replay.last_segment, replay.good_bytes));
    TESSERA_ASSIGN(log.segment_, files.open_append(replay.last_segment));
    log.segment_size_ = replay.good_bytes;
    log.unsynced_data_ = log.unsynced_name_ = true;  // by whoever wrote it, for all we know
  }
  return OpenedLog{std::move(log), std::move(replay)};
}

Result<std::uint64_t> RecordLog::append(std::uint32_t type, std::string_view payload, Durability durability) {
  TESSERA_CHECK_LE(payload.size(), max_payload);
  if (!failure_.empty()) {
    return fail(ExitCode::storage, "log ", folder_.string(),
                " takes no more records since this failure: ", failure_);
  }
  const std::vector<std::byte> frame = frame_of({next_lsn_, epoch_, type, std::string(payload)});
  if (Status written = write(frame, durability); !written.ok()) {
    failure_ = written.error().message;
    segment_.reset();
    return written.error();
  }
  return next_lsn_++;
}

Status RecordLog::write(const std::vector<std::byte>& frame, Durability durability) {
  if (segment_ == nullptr || segment_size_ >= settings_.segment_bytes) TESSERA_TRY(start_segment());
  TESSERA_TRY(segment_->append(frame));
  segment_size_ += frame.size();
  unsynced_data_ = true;
  return durability == Durability::machine ? sync() : Status();
}

Status RecordLog::start_segment() {
  // A segment that others follow must be whole, or the next open would call the log damaged.
  if (segment_ != nullptr) TESSERA_TRY(sync());
  TESSERA_ASSIGN(segment_, files_->open_append(segment_path(folder_, next_lsn_)));
  segment_size_ = 0;
  unsynced_name_ = true;
  return {};
}

Status RecordLog::sync() {
  if (unsynced_data_) TESSERA_TRY(segment_->sync());
  unsynced_data_ = false;
  if (unsynced_name_) TESSERA_TRY(files_->sync_folder(folder_));
  unsynced_name_ = false;
  return {};
}

}  // namespace tessera
