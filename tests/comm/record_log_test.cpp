#include "comm/storage/record_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>

#include "comm/storage/files.h"
#include "tests/comm/memory_files.h"
#include "tests/comm/scratch_folder.h"

namespace tessera {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string payload_of(std::uint64_t lsn) {
  return "{\"record\":" + std::to_string(lsn) + ",\"text\":\"" + std::string(lsn * 7 % 40, 'x') + "\"}";
}

/// Whether the records are payload_of(1), payload_of(2), ...: a prefix of what the tests append.
void expect_prefix(const std::vector<LogRecord>& records) {
  for (std::size_t i = 0; i < records.size(); ++i) {
    ASSERT_EQ(records[i].lsn, i + 1);
    ASSERT_EQ(records[i].payload, payload_of(i + 1));
    ASSERT_EQ(records[i].type, (i + 1) % 3);
  }
}

/// Appends up to record `last`; returns the last lsn acknowledged, and the last that was acknowledged as
/// durable.
struct Acknowledged {
  std::uint64_t any = 0, durable = 0;
};
void append_up_to(RecordLog& log, std::uint64_t last, Acknowledged& acknowledged) {
  while (log.next_lsn() <= last) {
    const std::uint64_t lsn = log.next_lsn();
    const Durability durability = lsn % 3 == 0 ? Durability::process : Durability::machine;
    if (!log.append(lsn % 3, payload_of(lsn), durability).ok()) return;
    acknowledged.any = lsn;
    if (durability == Durability::machine) acknowledged.durable = lsn;
  }
}

constexpr LogSettings small_segments{.segment_bytes = 300};

TEST(RecordLog, ReplaysWhatWasAppendedAcrossSegmentsAndEpochs) {
  ScratchFolder scratch;
  const Path folder = scratch.path() / "log";
  Acknowledged acknowledged;
  for (std::uint64_t epoch = 1; epoch <= 3; ++epoch) {
    Result<OpenedLog> opened = RecordLog::open(folder, Epoch{epoch}, small_segments);
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    EXPECT_EQ(opened->replay.records.size(), (epoch - 1) * 10);
    EXPECT_EQ(opened->replay.note, "");
    append_up_to(opened->log, epoch * 10, acknowledged);
  }
  const Result<LogReplay> replay = replay_log(folder);
  ASSERT_TRUE(replay.ok()) << replay.error().message;
  ASSERT_EQ(replay->records.size(), 30u);
  expect_prefix(replay->records);
  EXPECT_EQ(replay->records[9].epoch, Epoch{1});
  EXPECT_EQ(replay->records[10].epoch, Epoch{2});
  EXPECT_GT(list_folder(folder)->size(), 5u);
  EXPECT_EQ(RecordLog::open(folder, Epoch{2}).error().code, ExitCode::fenced);
}

/// A log of one segment of `count` records; returns its path.
Path write_log(MemoryFiles& files, std::uint64_t count, LogSettings settings = {}) {
  Result<OpenedLog> opened = RecordLog::open("/log", Epoch{1}, settings, files);
  EXPECT_TRUE(opened.ok());
  Acknowledged acknowledged;
  append_up_to(opened->log, count, acknowledged);
  EXPECT_EQ(acknowledged.any, count);
  return replay_log("/log", files)->last_segment;
}

TEST(RecordLog, EveryTruncationReplaysAPrefixAndGoesOn) {
  MemoryFiles files;
  const Path segment = write_log(files, 6);
  const std::string whole = *files.content(segment);
  std::size_t previous = 0;
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    *files.content(segment) = whole.substr(0, size);
    Result<OpenedLog> opened = RecordLog::open("/log", Epoch{2}, {}, files);
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    const LogReplay& replay = opened->replay;
    expect_prefix(replay.records);
    EXPECT_EQ(replay.good_bytes + replay.torn_bytes, size);
    EXPECT_EQ(replay.note.empty(), replay.torn_bytes == 0);
    ASSERT_TRUE(replay.records.size() == previous || replay.records.size() == previous + 1);
    previous = replay.records.size();
    const std::uint64_t next = opened->log.next_lsn();
    ASSERT_TRUE(opened->log.append(next % 3, payload_of(next), Durability::machine).ok());
    const Result<LogReplay> again = replay_log("/log", files);
    ASSERT_TRUE(again.ok()) << again.error().message;
    EXPECT_EQ(again->records.size(), previous + 1);
    expect_prefix(again->records);
  }
  EXPECT_EQ(previous, 6u);
}

TEST(RecordLog, EveryFlippedByteIsRefusedOrCutOffTheEnd) {
  MemoryFiles files;
  const Path segment = write_log(files, 6);
  const std::string whole = *files.content(segment);
  const std::size_t last_record = whole.size() - (payload_of(6).size() + 40);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int bit : {0, 3, 7}) {
      *files.content(segment) = whole;
      (*files.content(segment))[at] ^= static_cast<char>(1 << bit);
      const Result<LogReplay> replay = replay_log("/log", files);
      if (at < last_record) {
        ASSERT_FALSE(replay.ok()) << "byte " << at;
        EXPECT_THAT(replay.error().message, AllOf(HasSubstr(segment.string()), HasSubstr("at byte ")));
      } else {
        ASSERT_TRUE(replay.ok()) << replay.error().message;
        EXPECT_EQ(replay->records.size(), 5u);
        EXPECT_EQ(replay->good_bytes, last_record);
        EXPECT_THAT(replay->note, HasSubstr("at byte " + std::to_string(last_record)));
      }
    }
  }
}

TEST(RecordLog, DamageInAnEarlierSegmentOrAMissingOneIsRefused) {
  MemoryFiles files;
  write_log(files, 20, small_segments);
  const auto entries = files.list_folder("/log").value();
  ASSERT_GT(entries.size(), 2u);
  const auto twin = files.copy();
  std::string& first = *files.content("/log/" + entries[0].name);
  first.resize(first.size() - 1);
  EXPECT_THAT(replay_log("/log", files).error().message, HasSubstr(entries[0].name));
  ASSERT_TRUE(twin->remove("/log/" + entries[1].name).ok());
  EXPECT_THAT(replay_log("/log", *twin).error().message, HasSubstr(entries[1].name + " is missing"));
}

TEST(RecordLog, NoAppendAfterAFailedOne) {
  // The second record takes two operations, the write and the sync; neither may be tried again.
  for (const std::uint64_t failing : {1, 2}) {
    MemoryFiles files;
    Result<OpenedLog> opened = RecordLog::open("/log", Epoch{1}, {}, files);
    RecordLog& log = opened->log;
    ASSERT_TRUE(log.append(1, payload_of(1), Durability::machine).ok());
    files.fail_at = files.operations() + failing;
    const auto failed = log.append(2, payload_of(2), Durability::machine);
    ASSERT_FALSE(failed.ok());
    EXPECT_THAT(failed.error().message, HasSubstr("disk full"));
    const auto refused = log.append(2, payload_of(2), Durability::process);
    ASSERT_FALSE(refused.ok());
    EXPECT_THAT(refused.error().message, AllOf(HasSubstr("takes no more records"), HasSubstr("disk full")));
    Result<OpenedLog> reopened = RecordLog::open("/log", Epoch{2}, {}, files);
    ASSERT_TRUE(reopened.ok());
    expect_prefix(reopened->replay.records);
    EXPECT_TRUE(reopened->log.append(9, "{}", Durability::machine).ok());
  }
}

TEST(RecordLog, ACrashAtAnyOperationLosesNothingAcknowledged) {
  constexpr std::uint64_t seed = 41;
  SCOPED_TRACE(seed);
  KeyedRandom random(seed);
  constexpr std::uint64_t records = 14;
  int states = 0;
  bool crashed = true;
  for (std::uint64_t k = 1; crashed; ++k) {
    for (int variant = 0; variant < 22; ++variant) {
      MemoryFiles files;
      files.crash_at = k;
      Acknowledged acknowledged;
      crashed = false;
      try {
        Result<OpenedLog> opened = RecordLog::open("/log", Epoch{1}, small_segments, files);
        ASSERT_TRUE(opened.ok());
        append_up_to(opened->log, records, acknowledged);
      } catch (const Crash&) {
        crashed = true;
      }
      const auto loss = variant == 0   ? MemoryFiles::Loss::nothing
                        : variant == 1 ? MemoryFiles::Loss::unsynced
                                       : MemoryFiles::Loss::random;
      files.restart(loss, random);
      Result<OpenedLog> opened = RecordLog::open("/log", Epoch{2}, small_segments, files);
      ASSERT_TRUE(opened.ok()) << "crash at operation " << k << ", variant " << variant << ": "
                               << opened.error().message;
      const std::vector<LogRecord>& found = opened->replay.records;
      expect_prefix(found);
      ASSERT_GE(found.size(), variant == 0 ? acknowledged.any : acknowledged.durable) << "operation " << k;
      append_up_to(opened->log, records, acknowledged);
      const Result<LogReplay> again = replay_log("/log", files);
      ASSERT_TRUE(again.ok()) << again.error().message;
      ASSERT_EQ(again->records.size(), records);
      expect_prefix(again->records);
      ++states;
    }
  }
  std::cout << "seed " << seed << ": " << states << " crash states of the log recovered\n";
}

}  // namespace
}  // namespace tessera
