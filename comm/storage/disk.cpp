// The FileSystem of the machine: plain system calls, each failure turned into a sentence.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/descriptor.h"
#include "comm/storage/file_system.h"

namespace tessera {
namespace {

Status write_all(int fd, Bytes bytes, const Path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), std::min<std::size_t>(bytes.size(), 1u << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return storage_error("cannot write", path, written == 0 ? EIO : errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

class DiskAppendFile final : public AppendFile {
 public:
  DiskAppendFile(int fd, Path path) : fd_(fd), path_(std::move(path)) {}
  Status append(Bytes bytes) override { return write_all(fd_.get(), bytes, path_); }
  Status sync() override {
    if (::fdatasync(fd_.get()) != 0) return storage_error("cannot sync", path_, errno);
    return {};
  }

 private:
  Descriptor fd_;
  Path path_;
};

class Disk final : public FileSystem {
 public:
  Status write_new(const Path& path, std::span<const Bytes> parts, Durability durability) override {
    return write(path, O_CREAT | O_EXCL, parts, durability);
  }
  Status write_over(const Path& path, std::span<const Bytes> parts, Durability durability) override {
    return write(path, 0, parts, durability);
  }

  Status rename(const Path& from, const Path& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return storage_error("cannot rename to", to, errno);
    return {};
  }

  Status link(const Path& from, const Path& to) override {
    if (::link(from.c_str(), to.c_str()) != 0) return storage_error("cannot link", to, errno);
    return {};
  }

  Status sync_folder(const Path& folder) override {
    const Path named = folder.empty() ? Path(".") : folder;  // the parent of "file"
    Descriptor fd(::open(named.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd.ok() || ::fsync(fd.get()) != 0) return storage_error("cannot sync folder", named, errno);
    return {};
  }

  Status make_folder(const Path& folder) override {
    if (::mkdir(folder.c_str(), 0700) == 0) return {};
    if (errno == ENOENT && folder.has_parent_path() && folder.parent_path() != folder) {
      TESSERA_TRY(make_folder(folder.parent_path()));
      if (::mkdir(folder.c_str(), 0700) == 0) return {};
    }
    const int error = errno;
    struct stat about {};
    if (error == EEXIST && ::stat(folder.c_str(), &about) == 0 && S_ISDIR(about.st_mode)) return {};
    return storage_error("cannot make folder", folder, error);
  }

  Status remove(const Path& path) override {
    if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
    const int error = errno;
    if ((error == EISDIR || error == EPERM) && (::rmdir(path.c_str()) == 0 || errno == ENOENT)) return {};
    return storage_error("cannot remove", path, error == EISDIR ? errno : error);
  }

  Status truncate(const Path& path, std::uint64_t size) override {
    Descriptor fd(::open(path.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.ok() || ::ftruncate(fd.get(), static_cast<off_t>(size)) != 0 || ::fsync(fd.get()) != 0) {
      return storage_error("cannot cut", path, errno);
    }
    return {};
  }

  Result<std::unique_ptr<AppendFile>> open_append(const Path& path) override {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return storage_error("cannot open", path, errno);
    return std::unique_ptr<AppendFile>(std::make_unique<DiskAppendFile>(fd, path));
  }

  Result<Buffer> read_file(const Path& path, std::uint64_t max_bytes) const override {
    // O_NONBLOCK: opening a pipe that somebody put there must not wait for its other end.
    Descriptor fd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!fd.ok()) return storage_error("cannot open", path, errno);
    struct stat about {};
    if (::fstat(fd.get(), &about) != 0) return storage_error("cannot look at", path, errno);
    if (!S_ISREG(about.st_mode)) return fail(ExitCode::storage, path.string(), " is not a regular file");
    if (static_cast<std::uint64_t>(about.st_size) > max_bytes) {
      return fail(ExitCode::storage, path.string(), " has ", about.st_size, " bytes, more than the ",
                  max_bytes, " that are allowed here");
    }
    Buffer buffer = Buffer::allocate(static_cast<std::size_t>(about.st_size));
    std::size_t done = 0;
    while (done < buffer.bytes.size()) {
      const ssize_t got = ::read(fd.get(), buffer.bytes.data() + done, buffer.bytes.size() - done);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return storage_error("cannot read", path, errno);
      if (got == 0) return fail(ExitCode::storage, path.string(), " was cut short while it was read");
      done += static_cast<std::size_t>(got);
    }
    return buffer;
  }

  Result<std::vector<FolderEntry>> list_folder(const Path& folder) const override {
    struct stat about {};
    if (::lstat(folder.c_str(), &about) != 0) return storage_error("cannot open folder", folder, errno);
    if (!S_ISDIR(about.st_mode)) return storage_error("cannot open folder", folder, ENOTDIR);
    std::error_code error;
    std::vector<FolderEntry> entries;
    for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      std::error_code ignored;
      entries.push_back({entry->path().filename().string(),
                         entry->symlink_status(ignored).type() == std::filesystem::file_type::directory});
    }
    if (error) return storage_error("cannot list folder", folder, error.value());
    std::sort(entries.begin(), entries.end());
    return entries;
  }

  bool exists(const Path& path) const override {
    struct stat about {};
    return ::lstat(path.c_str(), &about) == 0;
  }

 private:
  static Status write(const Path& path, int creation, std::span<const Bytes> parts, Durability durability) {
    Descriptor fd(::open(path.c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC | creation, 0600));
    if (!fd.ok()) return storage_error("cannot create", path, errno);
    Status written;
    off_t size = 0;
    for (Bytes part : parts) {
      size += static_cast<off_t>(part.size());
      if (written.ok()) written = write_all(fd.get(), part, path);
    }
    struct stat about {};
    const bool longer = ::fstat(fd.get(), &about) == 0 && about.st_size > size;
    if (written.ok() && longer && ::ftruncate(fd.get(), size) != 0)
      written = storage_error("cannot cut", path, errno);
    if (written.ok() && durability == Durability::machine && ::fsync(fd.get()) != 0) {
      written = storage_error("cannot sync", path, errno);
    }
    if (!written.ok()) ::unlink(path.c_str());
    return written;
  }
};

}  // namespace

FileSystem& disk() {
  static Disk files;
  return files;
}

Error storage_error(std::string_view what, const Path& path, int error_number) {
  const char* code = strerrorname_np(error_number);
  std::string reason = std::strerror(error_number);
  if (error_number == ENOSPC) reason = "disk full";
  if (error_number == EDQUOT) reason = "disk quota used up";
  if (error_number == EFBIG) reason = "the file would be larger than the limit (ulimit -f)";
  return fail(ExitCode::storage, what, " ", path.string(), ": ", reason, " (",
              code == nullptr ? "unknown error" : code, ")");
}

}  // namespace tessera
