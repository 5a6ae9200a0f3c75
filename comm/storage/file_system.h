// The few file operations that storage is made of, behind an interface: tests put a twin in its place that
// fails or crashes at the k-th operation and forgets what was not synced. Nothing here follows a symbolic
// link in the last part of a path.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/tensor.h"

namespace tessera {

using Path = std::filesystem::path;

/// What a write must survive once it has returned.
enum class Durability {
  process,  ///< kill -9 of this process: the bytes are with the kernel
  machine,  ///< power loss: the bytes and the names that lead to them are synced
};

struct FolderEntry {
  std::string name;
  bool is_folder = false;  ///< a real one: a symbolic link to a folder is not
  auto operator<=>(const FolderEntry&) const = default;
};

/// A file that only grows.
class AppendFile {
 public:
  virtual ~AppendFile() = default;
  virtual Status append(Bytes bytes) = 0;
  /// fdatasync. After a failure the kernel may have dropped the data, and a second sync would lie: give the
  /// file up.
  virtual Status sync() = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  /// Creates a file (0600) that must not exist yet, from the parts one after the other; `machine` syncs it
  /// too. A failed write leaves no file.
  virtual Status write_new(const Path& path, std::span<const Bytes> parts, Durability durability) = 0;
  /// The same into a file that is there and that nobody reads any more: its blocks are used again, where that
  /// is cheaper. A failed write leaves no file.
  virtual Status write_over(const Path& path, std::span<const Bytes> parts, Durability durability) {
    TESSERA_TRY(remove(path));
    return write_new(path, parts, durability);
  }
  virtual Status rename(const Path& from, const Path& to) = 0;
  /// Gives a file another name besides the one it has, in the same file system; one of that name must not
  /// exist.
  virtual Status link(const Path& /*from*/, const Path& to) {
    return fail(ExitCode::storage, "cannot link ", to.string(), ": not in this file system");
  }
  /// Makes the names in a folder durable.
  virtual Status sync_folder(const Path& folder) = 0;
  /// Creates a folder (0700) and what is missing above it; one that exists is fine.
  virtual Status make_folder(const Path& folder) = 0;
  /// Removes a file, a link or an empty folder; a missing one is fine.
  virtual Status remove(const Path& path) = 0;
  /// Cuts a file to `size` bytes and syncs it.
  virtual Status truncate(const Path& path, std::uint64_t size) = 0;
  /// Opens a file for appending, creating it (0600) where it is missing.
  virtual Result<std::unique_ptr<AppendFile>> open_append(const Path& path) = 0;
  /// The whole of a regular file; refuses one larger than `max_bytes` before reading it.
  virtual Result<Buffer> read_file(const Path& path, std::uint64_t max_bytes) const = 0;
  /// What is in a folder, sorted by name.
  virtual Result<std::vector<FolderEntry>> list_folder(const Path& folder) const = 0;
  virtual bool exists(const Path& path) const = 0;
};

/// The machine's own files. Stateless.
FileSystem& disk();

/// The sentence for a failed system call: "cannot write PATH: disk full (ENOSPC)".
Error storage_error(std::string_view what, const Path& path, int error_number);

}  // namespace tessera
