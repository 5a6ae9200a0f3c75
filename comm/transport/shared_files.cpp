#include "comm/transport/shared_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "base/ids.h"

namespace tessera {
namespace {

const std::string party_prefix = "party-";
constexpr std::size_t huge_page = std::size_t{2} << 20;

/// Of the files that a dead party filled, held or published.
void remove_files_of(int folder, const std::string& party) {
  std::set<Inode> filled;
  for (const std::string& file : names_in(folder, "own-" + party)) {
    if (const auto info = look_at(folder, file)) filled.insert(inode_of(*info));
    ::unlinkat(folder, file.c_str(), 0);
  }
  for (const std::string& file : names_in(folder, "held-" + party)) ::unlinkat(folder, file.c_str(), 0);
  for (const std::string& file : names_in(folder, "")) {
    const auto published = Bits128::from_hex(file) ? look_at(folder, file) : std::nullopt;
    if (published && filled.contains(inode_of(*published))) ::unlinkat(folder, file.c_str(), 0);
  }
}

// A huge page lies where both the address and the offset in the file are multiples of its size.
void* map_aligned(int file, std::size_t size, int protection, int flags) {
  if (size < huge_page) return ::mmap(nullptr, size, protection, MAP_SHARED | flags, file, 0);
  auto* const room = static_cast<std::byte*>(
      ::mmap(nullptr, size + huge_page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (room == MAP_FAILED) return MAP_FAILED;
  const std::size_t before = -reinterpret_cast<std::uintptr_t>(room) % huge_page;
  std::byte* const at = room + before;
  std::byte* const end = room + size + huge_page;
  void* const memory = ::mmap(at, size, protection, MAP_SHARED | MAP_FIXED | flags, file, 0);
  const int cause = errno;
  if (memory == MAP_FAILED) {
    ::munmap(room, size + huge_page);
  } else {
    const std::size_t page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    std::byte* const after = at + (size + page - 1) / page * page;
    if (before > 0) ::munmap(room, before);
    if (after < end) ::munmap(after, static_cast<std::size_t>(end - after));
  }
  errno = cause;
  return memory;
}

// Memory file systems mostly have small pages only, unless their pages are asked to become huge ones (Linux
// 6.1). One small page must be there for each; measured: 100 MB are there in 11 ms, in small pages in 70, and
// merges read and write them faster. Where it cannot be done, nothing is.
void take_huge_pages(const Mapping& mapping) {
  constexpr int collapse = 25;  // MADV_COLLAPSE, which older headers lack
  const std::size_t whole = mapping.size / huge_page * huge_page;
  for (std::size_t at = 0; at < whole; at += huge_page) {
    if (::posix_fallocate(mapping.fd.get(), static_cast<off_t>(at), 1) != 0) return;
  }
  if (whole > 0) ::madvise(mapping.memory, whole, collapse);
}

}  // namespace

Mapping::~Mapping() {
  ::munmap(memory, size);
}

std::shared_ptr<Mapping> Mapping::make(Descriptor file, std::size_t size, int protection) {
  void* const memory = map_aligned(file.get(), size, protection, MAP_POPULATE);
  if (memory == MAP_FAILED) return nullptr;
  return std::make_shared<Mapping>(std::move(file), memory, size);
}

std::shared_ptr<Mapping> Mapping::make_filled(Descriptor file, std::size_t size) {
  if (::ftruncate(file.get(), static_cast<off_t>(size)) != 0) return nullptr;
  void* const memory = map_aligned(file.get(), size, PROT_READ | PROT_WRITE, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto mapping = std::make_shared<Mapping>(std::move(file), memory, size);
  take_huge_pages(*mapping);
  errno = ::posix_fallocate(mapping->fd.get(), 0, static_cast<off_t>(size));  // whatever is missing yet
  return errno == 0 ? mapping : nullptr;
}

struct stat Mapping::about() const {
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) info.st_nlink = 0;
  return info;
}

void forget_unnamed(Mappings& mappings) {
  std::erase_if(mappings, [](const auto& entry) { return entry.second->about().st_nlink == 0; });
}

std::optional<struct stat> look_at(int folder, const std::string& name) {
  struct stat info {};
  if (::fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return std::nullopt;
  return info;
}

std::vector<std::string> names_in(int folder, const std::string& prefix) {
  std::vector<std::string> names;
  const int again = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const list = again < 0 ? nullptr : ::fdopendir(again);
  if (list == nullptr) return names;
  while (const dirent* entry = ::readdir(list)) {
    if (std::string_view(entry->d_name).starts_with(prefix)) names.emplace_back(entry->d_name);
  }
  ::closedir(list);
  return names;
}

Result<Descriptor> join_as(int folder, const std::string& party) {
  // It has its name once it is locked, so that nobody takes this party for dead meanwhile.
  const std::string name = party_prefix + party, unlocked = "new-" + party;
  Descriptor lock(::openat(folder, unlocked.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!lock.ok() || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0 ||
      ::renameat(folder, unlocked.c_str(), folder, name.c_str()) != 0) {
    const int cause = errno;
    ::unlinkat(folder, unlocked.c_str(), 0);
    return fail(ExitCode::storage, "cannot lock a file in the shared-memory folder: ", std::strerror(cause));
  }
  return lock;
}

namespace {

/// Calls visit(name) for the parties that live or that do not.
template <class Visit>
void for_each_party(int folder, bool alive, const Visit& visit) {
  for (const std::string& name : names_in(folder, party_prefix)) {
    const Descriptor lock(::openat(folder, name.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!lock.ok()) continue;
    const bool lives = ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0;
    if (lives == alive) visit(name);
  }
}

}  // namespace

void remove_of_the_dead(int folder) {
  for_each_party(folder, false, [&](const std::string& name) {
    remove_files_of(folder, name.substr(party_prefix.size()));
    ::unlinkat(folder, name.c_str(), 0);
  });
}

bool is_in_use(int folder) {
  bool any = false;
  for_each_party(folder, true, [&](const std::string&) { any = true; });
  return any;
}

}  // namespace tessera
