#include "comm/storage/directory_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <optional>
#include <string>

#include "comm/storage/files.h"

namespace tessera {
namespace {
constexpr std::string_view epoch_prefix = "epoch-";

/// "pid 4711 on host node3": who we are, for whoever finds our lock.
std::string self() {
  char host[256] = "unknown";
  ::gethostname(host, sizeof host - 1);
  return "pid " + std::to_string(::getpid()) + " on host " + host;
}

std::optional<std::uint64_t> epoch_of(const std::string& name) {
  if (!name.starts_with(epoch_prefix)) return std::nullopt;
  std::uint64_t epoch = 0;
  const char* end = name.data() + name.size();
  auto [stop, error] = std::from_chars(name.data() + epoch_prefix.size(), end, epoch);
  if (error != std::errc() || stop != end) return std::nullopt;
  return epoch;
}

Result<std::uint64_t> newest_epoch(const Path& folder, const FileSystem& files) {
  TESSERA_ASSIGN(const std::vector<FolderEntry> entries, files.list_folder(folder));
  std::uint64_t newest = 0;
  for (const FolderEntry& entry : entries) newest = std::max(newest, epoch_of(entry.name).value_or(0));
  return newest;
}

}  // namespace

Result<DirectoryLock> DirectoryLock::take(const Path& run) {
  TESSERA_TRY(make_folder(run));
  TESSERA_TRY(disk().sync_folder(run.parent_path()));
  const Path path = run / "lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return storage_error("cannot open", path, errno);
  DirectoryLock lock(fd);
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &whole) != 0) {
    if (errno != EAGAIN && errno != EACCES) return storage_error("cannot lock", path, errno);
    char holder[512];
    const ssize_t got = ::pread(fd, holder, sizeof holder, 0);
    return fail(ExitCode::fenced, "run directory ", run.string(), " is in use by ",
                got > 0 ? std::string_view(holder, static_cast<std::size_t>(got)) : "another process",
                "; stop it, or choose another directory with --out");
  }
  const std::string holder = self();
  if (::ftruncate(fd, 0) != 0 ||
      ::pwrite(fd, holder.data(), holder.size(), 0) != static_cast<ssize_t>(holder.size())) {
    return storage_error("cannot write", path, errno);
  }
  return lock;
}

DirectoryLock::~DirectoryLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<Epoch> claim_next_epoch(const Path& run, FileSystem& files) {
  const Path folder = run / "log";
  TESSERA_TRY(files.make_folder(folder));
  TESSERA_TRY(files.sync_folder(run));
  const std::string holder = self();
  const Bytes bytes = std::as_bytes(std::span(holder));
  for (;;) {
    TESSERA_ASSIGN(const std::uint64_t newest, newest_epoch(folder, files));
    const Path path = folder / (std::string(epoch_prefix) + std::to_string(newest + 1));
    const Status created = files.write_new(path, std::span(&bytes, 1), Durability::machine);
    if (created.ok()) {
      TESSERA_TRY(files.sync_folder(folder));
      return Epoch{newest + 1};
    }
    // Somebody else was faster: go above theirs. Anything else is for the caller.
    TESSERA_ASSIGN(const std::uint64_t now, newest_epoch(folder, files));
    if (now == newest) return created.error();
  }
}

bool is_newest_epoch(const Path& run, Epoch epoch, const FileSystem& files) {
  const Result<std::uint64_t> newest = newest_epoch(run / "log", files);
  return newest.ok() && *newest <= epoch.value;
}

Status require_newest_epoch(const Path& run, Epoch epoch, const FileSystem& files) {
  const Result<std::uint64_t> newest = newest_epoch(run / "log", files);
  if (!newest.ok()) return newest.error();
  if (*newest <= epoch.value) return {};
  return fail(ExitCode::fenced, "another coordinator took over run directory ", run.string(),
              ": its epoch is ", *newest, ", mine is ", epoch);
}

}  // namespace tessera
