// One coordinator per run directory: a lock that the kernel releases when its holder dies, and epoch files,
// by which a coordinator that was frozen and overtaken sees that it must not write any more.
#pragma once
#include <string>
#include <utility>

#include "base/error.h"
#include "base/ids.h"
#include "comm/storage/file_system.h"

namespace tessera {

/// Holds the lock of a run directory (an OFD lock on RUN/lock) as long as it lives. Not inherited by programs
/// that are started.
class DirectoryLock {
 public:
  /// Makes the directory when it is missing. When somebody holds it: Error{ExitCode::fenced} with the
  /// holder's pid and host.
  static Result<DirectoryLock> take(const Path& run);
  DirectoryLock(DirectoryLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  DirectoryLock& operator=(DirectoryLock&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~DirectoryLock();

 private:
  explicit DirectoryLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

/// Creates RUN/log/epoch-N for the smallest N above all that exist (the first is 1), durably. Two callers
/// never get the same.
Result<Epoch> claim_next_epoch(const Path& run, FileSystem& files = disk());
/// Whether no later epoch was claimed. False also when the folder cannot be read: who cannot tell must not
/// write.
bool is_newest_epoch(const Path& run, Epoch epoch, const FileSystem& files = disk());
/// The same as a Status: Error{ExitCode::fenced} when another coordinator took over.
Status require_newest_epoch(const Path& run, Epoch epoch, const FileSystem& files = disk());

}  // namespace tessera
