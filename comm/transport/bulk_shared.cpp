#include "comm/transport/bulk_shared.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace tessera {
namespace {

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

bool write_all(int fd, Bytes bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<SharedFolder>> SharedFolder::open(const std::string& folder) {
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    return fail(ExitCode::storage, "cannot make shared-memory folder ", folder, ": ", std::strerror(errno));
  Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat info {};
  if (fd.get() < 0 || ::fstat(fd.get(), &info) != 0)
    return fail(ExitCode::storage, "cannot open shared-memory folder ", folder, ": ", std::strerror(errno));
  if (info.st_uid != ::geteuid() || (info.st_mode & 077) != 0)
    return fail(ExitCode::usage, "shared-memory folder ", folder,
                " must belong to this user and be closed to others (mode 0700)");
  std::error_code error;
  const std::filesystem::path canonical = std::filesystem::canonical(folder, error);
  if (error) return fail(ExitCode::storage, "cannot resolve ", folder, ": ", error.message());
  return std::unique_ptr<SharedFolder>(new SharedFolder(fd.release(), canonical.string()));
}

SharedFolder::~SharedFolder() {
  ::close(descriptor_);
}

Result<std::string> SharedFolder::publish(const Blob& blob) const {
  const std::string name = blob.digest.hex();
  const std::string temporary = name + "." + random_bits128().hex();
  Descriptor fd(
      ::openat(descriptor_, temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (fd.get() < 0)
    return fail(ExitCode::storage, "cannot create ", folder_, "/", temporary, ": ", std::strerror(errno));
  // write() and not a mapping: a full memory file system then is an error here and not a SIGBUS.
  if (!write_all(fd.get(), blob.bytes()) ||
      ::renameat(descriptor_, temporary.c_str(), descriptor_, name.c_str()) != 0) {
    const int cause = errno;
    ::unlinkat(descriptor_, temporary.c_str(), 0);
    return fail(ExitCode::storage, "cannot write ", folder_, "/", name, ": ", std::strerror(cause));
  }
  return folder_ + "/" + name;
}

void SharedFolder::remove(const Digest& digest) const {
  ::unlinkat(descriptor_, digest.hex().c_str(), 0);
}

bool SharedFolder::is_path_of(const BlobRef& ref) const {
  const std::filesystem::path path(ref.path);
  if (path.filename() != ref.digest.hex()) return false;
  std::error_code error;
  return std::filesystem::canonical(path.parent_path(), error) == folder_ && !error;
}

Result<Buffer> SharedFolder::map(const BlobRef& ref) const {
  const std::string name = ref.digest.hex();
  Descriptor fd(::openat(descriptor_, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat info {};
  if (fd.get() < 0 || ::fstat(fd.get(), &info) != 0)
    return fail(ExitCode::storage, "cannot open ", folder_, "/", name, ": ", std::strerror(errno));
  if (!S_ISREG(info.st_mode) || static_cast<std::uint64_t>(info.st_size) != ref.size)
    return fail(ExitCode::storage, folder_, "/", name, " is not a plain file of ", ref.size, " bytes");
  if (ref.size == 0) return Buffer{};
  void* memory = ::mmap(nullptr, ref.size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (memory == MAP_FAILED)
    return fail(ExitCode::storage, "cannot map ", folder_, "/", name, ": ", std::strerror(errno));
  const std::size_t size = ref.size;
  return Buffer{std::shared_ptr<void>(memory, [size](void* mapped) { ::munmap(mapped, size); }),
                {static_cast<std::byte*>(memory), size}};
}

}  // namespace tessera
