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

}  // namespace

Mapping::~Mapping() {
  ::munmap(memory, size);
}

std::shared_ptr<Mapping> Mapping::make(Descriptor file, std::size_t size, int protection) {
  void* memory = ::mmap(nullptr, size, protection, MAP_SHARED | MAP_POPULATE, file.get(), 0);
  if (memory == MAP_FAILED) return nullptr;
  return std::make_shared<Mapping>(std::move(file), memory, size);
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
