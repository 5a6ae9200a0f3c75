#include "comm/transport/bulk_shared.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "comm/transport/shared_files.h"

namespace tessera {
namespace {

constexpr int patience = 64;          // blobs that a file waits for one that it fits
constexpr std::time_t useless = 120;  // seconds after which nobody is expected to want a spare file

std::string spares_of(std::size_t size) {
  return "spare-" + std::to_string(size) + "-";
}

struct OwnFile {
  std::string name;  ///< of its own, besides that of the blob in it
  std::shared_ptr<Mapping> mapping;
  int unused = 0;  ///< blobs since it came back
};

}  // namespace

std::string kept_name(const Digest& digest) {
  return std::string(kept_prefix) + digest.hex();
}
std::string spare_name(std::size_t size) {
  return spares_of(size) + random_bits128().hex();
}
void remove_shared_folder(const std::string& folder, bool but_kept) {
  std::error_code ignored;
  if (!but_kept) return void(std::filesystem::remove_all(folder, ignored));
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (!entry.path().filename().string().starts_with(kept_prefix))
      std::filesystem::remove_all(entry.path(), ignored);
  }
  std::filesystem::remove(folder, ignored);  // if it is empty now
}

void remove_deserted_folders(const std::string& prefix, Duration quiet) {
  const std::filesystem::path begin(prefix);
  const std::time_t now = std::time(nullptr);
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(begin.parent_path(), ignored)) {
    if (!entry.path().filename().string().starts_with(begin.filename().string())) continue;
    const Descriptor folder(::open(entry.path().c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct stat info {};
    if (!folder.ok() || ::fstat(folder.get(), &info) != 0 || info.st_uid != ::geteuid()) continue;
    if (static_cast<double>(now - info.st_mtime) < seconds(quiet) || is_in_use(folder.get())) continue;
    if (names_in(folder.get(), std::string(kept_prefix)).empty())
      remove_shared_folder(entry.path().string(), false);
  }
}

struct SharedFolder::Files {
  Descriptor folder, lock;
  std::string path;   ///< canonical
  std::string party;  ///< of this object, in the names of its files
  std::mutex mutex;   // guards what follows
  int files = 0;      ///< named so far
  std::vector<OwnFile> free;
  std::map<const std::byte*, std::string> lent;  // memory -> own name
  std::map<std::string, const std::byte*> held;  // name -> memory
  std::map<Digest, Buffer> published;            // held until removed
  Mappings read, away;                           // of others' files; of own ones that others went on to hold
  bool closed = false;

  Files(Descriptor directory, Descriptor alive, std::string canonical, std::string name)
      : folder(std::move(directory)),
        lock(std::move(alive)),
        path(std::move(canonical)),
        party(std::move(name)) {}

  std::string name_of(const std::byte* memory) {
    const std::scoped_lock guard(mutex);
    const auto found = lent.find(memory);
    return found == lent.end() ? std::string() : found->second;
  }
  std::string next_name(const char* kind) { return kind + party + "-" + std::to_string(++files); }
  void unlink(const std::string& name) { ::unlinkat(folder.get(), name.c_str(), 0); }

  // Nobody here has the memory any more. Others may hold the file, and whoever is last makes it a spare one.
  void give_back(OwnFile file) {
    const std::scoped_lock guard(mutex);
    lent.erase(file.mapping->bytes().data());
    if (closed) return;  // its name is gone already
    const struct stat info = file.mapping->about();
    const bool whole = static_cast<std::size_t>(info.st_size) == file.mapping->size;
    if (whole && info.st_nlink == 1) return free.push_back(std::move(file));
    unlink(file.name);
    if (whole && info.st_nlink > 1) away[inode_of(info)] = std::move(file.mapping);
  }

  void let_go(const std::string& name, const Mapping& mapping) {
    const std::scoped_lock guard(mutex);
    if (held.erase(name) == 0) return;  // gone with the folder
    const bool last = mapping.about().st_nlink == 1;
    if (!last || ::renameat(folder.get(), name.c_str(), folder.get(), spare_name(mapping.size).c_str()) != 0)
      unlink(name);
  }

  // A file that nobody uses: one that came back, or one that some party has done with, best one that is
  // mapped here already.
  std::optional<OwnFile> used_before(std::size_t size) {
    const auto at =
        std::ranges::find_if(free, [&](const OwnFile& file) { return file.mapping->size == size; });
    if (at != free.end()) {
      OwnFile file = std::move(*at);
      free.erase(at);
      return file;
    }
    forget_unnamed(away);
    std::vector<std::pair<bool, std::string>> spares;  // false: mapped here
    for (std::string& name : names_in(folder.get(), spares_of(size))) {
      if (const auto info = look_at(folder.get(), name))
        spares.emplace_back(!away.contains(inode_of(*info)), std::move(name));
    }
    std::ranges::sort(spares);
    for (const auto& [fresh, spare] : spares) {
      if (std::optional<OwnFile> file = claim(spare, size)) return file;
    }
    return std::nullopt;
  }

  std::optional<OwnFile> claim(const std::string& spare, std::size_t size) {
    OwnFile file{.name = next_name("own-"), .mapping = {}};
    if (::renameat(folder.get(), spare.c_str(), folder.get(), file.name.c_str()) != 0) return std::nullopt;
    Descriptor fd(::openat(folder.get(), file.name.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat info {};
    const bool known = fd.ok() && ::fstat(fd.get(), &info) == 0 && S_ISREG(info.st_mode) &&
                       static_cast<std::size_t>(info.st_size) == size;
    if (known && info.st_nlink > 1) {  // its writer has not heard yet that it is done with
      ::renameat(folder.get(), file.name.c_str(), folder.get(), spare.c_str());
      return std::nullopt;
    }
    if (known) {
      if (auto mapped = away.extract(inode_of(info)))
        file.mapping = std::move(mapped.mapped());
      else
        file.mapping = Mapping::make(std::move(fd), size, PROT_READ | PROT_WRITE);
    }
    if (file.mapping) return file;
    unlink(file.name);
    return std::nullopt;
  }

  Result<OwnFile> make_new(std::size_t size) {
    OwnFile file{.name = next_name("own-"), .mapping = {}};
    Descriptor fd(
        ::openat(folder.get(), file.name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (fd.ok()) file.mapping = Mapping::make_filled(std::move(fd), size);
    const int failed = errno;
    if (file.mapping) return file;
    unlink(file.name);
    return fail(ExitCode::storage, "no room in ", path, ": ", std::strerror(failed));
  }

  // Sizes change seldom, and what fits nothing any more is memory of this machine.
  void remove_useless() {
    std::erase_if(free, [&](OwnFile& file) {
      if (++file.unused < patience) return false;
      unlink(file.name);
      return true;
    });
    const std::time_t now = std::time(nullptr);
    for (const std::string& name : names_in(folder.get(), "spare-")) {
      const auto info = look_at(folder.get(), name);
      if (info && info->st_ctime + useless < now) unlink(name);
    }
  }
};

Result<std::unique_ptr<SharedFolder>> SharedFolder::open(const std::string& folder) {
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    return fail(ExitCode::storage, "cannot make shared-memory folder ", folder, ": ", std::strerror(errno));
  Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  struct stat info {};
  if (!fd.ok() || ::fstat(fd.get(), &info) != 0)
    return fail(ExitCode::storage, "cannot open shared-memory folder ", folder, ": ", std::strerror(errno));
  if (info.st_uid != ::geteuid() || (info.st_mode & 077) != 0)
    return fail(ExitCode::usage, "shared-memory folder ", folder,
                " must belong to this user and be closed to others (mode 0700)");
  std::error_code error;
  const std::filesystem::path canonical = std::filesystem::canonical(folder, error);
  if (error) return fail(ExitCode::storage, "cannot resolve ", folder, ": ", error.message());
  remove_of_the_dead(fd.get());
  const std::string party = random_bits128().hex();
  TESSERA_ASSIGN(Descriptor lock, join_as(fd.get(), party));
  return std::unique_ptr<SharedFolder>(
      new SharedFolder(std::make_shared<Files>(std::move(fd), std::move(lock), canonical.string(), party)));
}

SharedFolder::~SharedFolder() {
  std::map<Digest, Buffer> published;
  {
    const std::scoped_lock guard(files_->mutex);
    files_->closed = true;
    published.swap(files_->published);
    for (const OwnFile& file : files_->free) files_->unlink(file.name);
    for (const auto& [memory, name] : files_->lent) files_->unlink(name);
    for (const auto& [name, memory] : files_->held) files_->unlink(name);
    files_->free.clear();
    files_->held.clear();
    files_->read.clear();
    files_->away.clear();
    files_->unlink("party-" + files_->party);
  }
  for (const auto& [digest, buffer] : published) files_->unlink(digest.hex());
}

Result<Buffer> SharedFolder::allocate(std::size_t size) {
  if (size == 0) return Buffer::allocate(0);
  const std::scoped_lock guard(files_->mutex);
  std::optional<OwnFile> file = files_->used_before(size);
  if (!file) {
    files_->remove_useless();
    TESSERA_ASSIGN(file, files_->make_new(size));
  }
  file->unused = 0;
  const MutableBytes bytes = file->mapping->bytes();
  files_->lent.emplace(bytes.data(), file->name);
  return Buffer{
      std::shared_ptr<void>(bytes.data(), [files = files_, file = *std::move(file)](
                                              void*) mutable { files->give_back(std::move(file)); }),
      bytes};
}

Result<std::string> SharedFolder::publish(const Blob& blob) {
  Buffer buffer = blob.buffer;
  const int folder = files_->folder.get();
  std::string own = files_->name_of(buffer.bytes.data());
  if (own.empty()) {
    TESSERA_ASSIGN(buffer, allocate(blob.bytes().size()));
    std::memcpy(buffer.bytes.data(), blob.bytes().data(), blob.bytes().size());
    own = files_->name_of(buffer.bytes.data());
  }
  const std::string name = blob.digest.hex(), temporary = name + "." + random_bits128().hex();
  if (own.empty()) return fail(ExitCode::storage, "blob ", name, " has no bytes to share");
  // Under another name first: an equal blob may be there, and stays readable until it is replaced.
  if (::linkat(folder, own.c_str(), folder, temporary.c_str(), 0) != 0 ||
      ::renameat(folder, temporary.c_str(), folder, name.c_str()) != 0) {
    const int cause = errno;
    ::unlinkat(folder, temporary.c_str(), 0);
    return fail(ExitCode::storage, "cannot name ", files_->path, "/", name, ": ", std::strerror(cause));
  }
  ::unlinkat(folder, temporary.c_str(), 0);  // still there when both names were of one file
  const std::scoped_lock guard(files_->mutex);
  std::swap(files_->published[blob.digest], buffer);  // one that it replaces goes after the lock
  return files_->path + "/" + name;
}

void SharedFolder::remove(const Digest& digest) {
  // The name first: who holds the file before counts, and who comes after does not find it.
  files_->unlink(digest.hex());
  Buffer last;  // goes after the lock: it may be the file's last holder
  const std::scoped_lock guard(files_->mutex);
  if (const auto found = files_->published.find(digest); found != files_->published.end()) {
    last = std::move(found->second);
    files_->published.erase(found);
  }
}

bool SharedFolder::is_path_of(const BlobRef& ref) const {
  const std::filesystem::path path(ref.path);
  if (path.filename() != ref.digest.hex()) return false;
  std::error_code error;
  return std::filesystem::canonical(path.parent_path(), error) == files_->path && !error;
}

Result<Buffer> SharedFolder::hold(const BlobRef& ref) {
  const std::string name = ref.digest.hex();
  const int folder = files_->folder.get();
  const std::scoped_lock guard(files_->mutex);
  const std::string held = files_->next_name("held-");
  if (::linkat(folder, name.c_str(), folder, held.c_str(), 0) != 0)
    return fail(ExitCode::storage, "cannot hold ", files_->path, "/", name, ": ", std::strerror(errno));
  Descriptor fd(::openat(folder, held.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  struct stat info {};
  const bool fits = fd.ok() && ::fstat(fd.get(), &info) == 0 && S_ISREG(info.st_mode) &&
                    static_cast<std::uint64_t>(info.st_size) == ref.size;
  if (!fits || ref.size == 0) {
    files_->unlink(held);
    if (fits) return Buffer{};
    return fail(ExitCode::storage, files_->path, "/", name, " is not a plain file of ", ref.size, " bytes");
  }
  forget_unnamed(files_->read);
  std::shared_ptr<Mapping>& mapping = files_->read[inode_of(info)];
  if (!mapping || mapping->size != ref.size) mapping = Mapping::make(std::move(fd), ref.size, PROT_READ);
  if (!mapping) {
    const int cause = errno;
    files_->read.erase(inode_of(info));
    files_->unlink(held);
    return fail(ExitCode::storage, "cannot map ", files_->path, "/", name, ": ", std::strerror(cause));
  }
  files_->held.emplace(held, mapping->bytes().data());
  return Buffer{std::shared_ptr<void>(mapping->memory, [files = files_, held,
                                                        mapping](void*) { files->let_go(held, *mapping); }),
                mapping->bytes()};
}

std::string SharedFolder::path_of(const Buffer& held) const {
  const std::scoped_lock guard(files_->mutex);
  for (const auto& [name, memory] : files_->held) {
    if (memory == held.bytes.data()) return files_->path + "/" + name;
  }
  return {};
}

}  // namespace tessera
