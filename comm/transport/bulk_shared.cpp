#include "comm/transport/bulk_shared.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <vector>

namespace tessera {
namespace {

// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

constexpr int patience = 64;  // blobs that a file waits for one that it fits

// A whole file in memory, open for as long as it is there.
struct Mapping {
  Descriptor fd;
  void* memory;
  std::size_t size;
  Mapping(Descriptor file, void* address, std::size_t bytes)
      : fd(std::move(file)), memory(address), size(bytes) {}
  ~Mapping() { ::munmap(memory, size); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  static std::shared_ptr<Mapping> make(Descriptor file, std::size_t size, int protection) {
    void* memory = ::mmap(nullptr, size, protection, MAP_SHARED, file.get(), 0);
    if (memory == MAP_FAILED) return nullptr;
    return std::make_shared<Mapping>(std::move(file), memory, size);
  }
  MutableBytes bytes() const { return {static_cast<std::byte*>(memory), size}; }
};

struct OwnFile {
  std::string name;  ///< of its own, besides that of the blob in it
  std::shared_ptr<Mapping> mapping;
  int unused = 0;  ///< blobs since it came back
};

}  // namespace

struct SharedFolder::Files {
  int folder = -1;
  std::mutex mutex;  // guards what follows
  std::vector<OwnFile> free;
  std::map<const std::byte*, std::string> lent;                        // memory -> name
  std::map<Digest, Buffer> published;                                  // held until removed
  std::map<std::pair<dev_t, ino_t>, std::shared_ptr<Mapping>> mapped;  // of all parties
  bool closed = false;

  void give_back(OwnFile file) {
    const std::scoped_lock lock(mutex);
    lent.erase(file.mapping->bytes().data());
    struct stat info {};
    const bool whole = ::fstat(file.mapping->fd.get(), &info) == 0 &&
                       static_cast<std::size_t>(info.st_size) == file.mapping->size;
    if (closed) return;  // its name is gone already
    if (whole)
      free.push_back(std::move(file));
    else
      ::unlinkat(folder, file.name.c_str(), 0);
  }
};

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

SharedFolder::SharedFolder(int descriptor, std::string canonical)
    : descriptor_(descriptor), folder_(std::move(canonical)), files_(std::make_shared<Files>()) {
  files_->folder = descriptor;
}

SharedFolder::~SharedFolder() {
  std::map<Digest, Buffer> published;
  {
    const std::scoped_lock lock(files_->mutex);
    files_->closed = true;
    published.swap(files_->published);
    for (const OwnFile& file : files_->free) ::unlinkat(descriptor_, file.name.c_str(), 0);
    for (const auto& [memory, name] : files_->lent) ::unlinkat(descriptor_, name.c_str(), 0);
    files_->free.clear();
    files_->mapped.clear();
  }
  for (const auto& [digest, buffer] : published) ::unlinkat(descriptor_, digest.hex().c_str(), 0);
  ::close(descriptor_);
}

Result<Buffer> SharedFolder::allocate(std::size_t size) {
  OwnFile file;
  if (size == 0) return Buffer::allocate(0);
  {
    const std::scoped_lock lock(files_->mutex);
    auto& free = files_->free;
    const auto at =
        std::find_if(free.begin(), free.end(), [&](const OwnFile& f) { return f.mapping->size == size; });
    if (at != free.end()) {
      file = std::move(*at);
      free.erase(at);
    }
    std::erase_if(free, [&](OwnFile& f) {
      if (++f.unused < patience) return false;
      ::unlinkat(descriptor_, f.name.c_str(), 0);
      return true;
    });
  }
  if (!file.mapping) {
    file.name = "own-" + random_bits128().hex();
    Descriptor fd(
        ::openat(descriptor_, file.name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    // All of it at once: a full memory file system is an error here, and not a SIGBUS later.
    const int failed = fd.get() < 0 ? errno : ::posix_fallocate(fd.get(), 0, static_cast<off_t>(size));
    if (failed == 0) file.mapping = Mapping::make(std::move(fd), size, PROT_READ | PROT_WRITE);
    if (!file.mapping) {
      const int cause = failed == 0 ? errno : failed;
      ::unlinkat(descriptor_, file.name.c_str(), 0);
      return fail(ExitCode::storage, "no room in ", folder_, ": ", std::strerror(cause));
    }
  }
  file.unused = 0;
  const MutableBytes bytes = file.mapping->bytes();
  {
    const std::scoped_lock lock(files_->mutex);
    files_->lent.emplace(bytes.data(), file.name);
  }
  void* const memory = file.mapping->memory;
  return Buffer{std::shared_ptr<void>(memory, [files = files_, file = std::move(file)](
                                                  void*) mutable { files->give_back(std::move(file)); }),
                bytes};
}

Result<std::string> SharedFolder::publish(const Blob& blob) {
  Buffer buffer = blob.buffer;
  std::string own;
  const auto name_of = [&](const Buffer& lent) {
    const std::scoped_lock lock(files_->mutex);
    const auto found = files_->lent.find(lent.bytes.data());
    return found == files_->lent.end() ? std::string() : found->second;
  };
  if (own = name_of(buffer); own.empty()) {
    TESSERA_ASSIGN(buffer, allocate(blob.bytes().size()));
    std::memcpy(buffer.bytes.data(), blob.bytes().data(), blob.bytes().size());
    own = name_of(buffer);
  }
  const std::string name = blob.digest.hex(), temporary = name + "." + random_bits128().hex();
  if (own.empty()) return fail(ExitCode::storage, "blob ", name, " has no bytes to share");
  // Under another name first: an equal blob may be there, and stays readable until it is replaced.
  if (::linkat(descriptor_, own.c_str(), descriptor_, temporary.c_str(), 0) != 0 ||
      ::renameat(descriptor_, temporary.c_str(), descriptor_, name.c_str()) != 0) {
    const int cause = errno;
    ::unlinkat(descriptor_, temporary.c_str(), 0);
    return fail(ExitCode::storage, "cannot name ", folder_, "/", name, ": ", std::strerror(cause));
  }
  ::unlinkat(descriptor_, temporary.c_str(), 0);  // still there when both names were of one file
  const std::scoped_lock lock(files_->mutex);
  std::swap(files_->published[blob.digest], buffer);  // one that it replaces goes after the lock
  return folder_ + "/" + name;
}

void SharedFolder::remove(const Digest& digest) {
  ::unlinkat(descriptor_, digest.hex().c_str(), 0);
  Buffer last;  // goes after the lock: it may be the file's last holder
  const std::scoped_lock lock(files_->mutex);
  if (const auto found = files_->published.find(digest); found != files_->published.end()) {
    last = std::move(found->second);
    files_->published.erase(found);
  }
}

bool SharedFolder::is_path_of(const BlobRef& ref) const {
  const std::filesystem::path path(ref.path);
  if (path.filename() != ref.digest.hex()) return false;
  std::error_code error;
  return std::filesystem::canonical(path.parent_path(), error) == folder_ && !error;
}

Result<Buffer> SharedFolder::map(const BlobRef& ref) {
  const std::string name = ref.digest.hex();
  Descriptor fd(::openat(descriptor_, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat info {};
  if (fd.get() < 0 || ::fstat(fd.get(), &info) != 0)
    return fail(ExitCode::storage, "cannot open ", folder_, "/", name, ": ", std::strerror(errno));
  if (!S_ISREG(info.st_mode) || static_cast<std::uint64_t>(info.st_size) != ref.size)
    return fail(ExitCode::storage, folder_, "/", name, " is not a plain file of ", ref.size, " bytes");
  if (ref.size == 0) return Buffer{};
  const std::scoped_lock lock(files_->mutex);
  std::erase_if(files_->mapped, [](const auto& entry) {  // files that have no name any more
    struct stat now {};
    return ::fstat(entry.second->fd.get(), &now) != 0 || now.st_nlink == 0;
  });
  std::shared_ptr<Mapping>& mapping = files_->mapped[{info.st_dev, info.st_ino}];
  if (!mapping || mapping->size != ref.size) mapping = Mapping::make(std::move(fd), ref.size, PROT_READ);
  if (!mapping) {
    const int cause = errno;
    files_->mapped.erase({info.st_dev, info.st_ino});
    return fail(ExitCode::storage, "cannot map ", folder_, "/", name, ": ", std::strerror(cause));
  }
  return Buffer{mapping, mapping->bytes()};
}

}  // namespace tessera
