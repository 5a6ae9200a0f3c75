#include "comm/storage/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/ids.h"

namespace tessera {

Path tmp_name_for(const Path& path) {
  return path.parent_path() /
         (tmp_prefix + path.filename().string() + "-" + random_bits128().hex().substr(0, 16));
}

Status atomic_write(const Path& path, std::span<const Bytes> parts, Durability durability,
                    FileSystem& files) {
  return atomic_replace({}, path, parts, durability, files);
}

Status atomic_replace(const Path& spare, const Path& path, std::span<const Bytes> parts,
                      Durability durability, FileSystem& files) {
  const Path tmp = tmp_name_for(path);
  const bool again = !spare.empty() && files.exists(spare) && files.rename(spare, tmp).ok();
  Status written = again ? files.write_over(tmp, parts, durability) : files.write_new(tmp, parts, durability);
  if (written.ok()) written = files.rename(tmp, path);
  if (!written.ok()) {
    (void)files.remove(tmp);  // the first failure is the one to tell
    return fail(ExitCode::storage, "cannot replace ", path.string(), ": ", written.error().message);
  }
  return durability == Durability::machine ? files.sync_folder(path.parent_path()) : Status();
}

Status atomic_write(const Path& path, Bytes bytes, Durability durability, FileSystem& files) {
  return atomic_write(path, std::span(&bytes, 1), durability, files);
}

Status atomic_write(const Path& path, std::string_view text, Durability durability, FileSystem& files) {
  return atomic_write(path, Bytes(std::as_bytes(std::span(text))), durability, files);
}

Result<Buffer> read_file(const Path& path, std::uint64_t max_bytes, const FileSystem& files) {
  return files.read_file(path, max_bytes);
}

Result<Buffer> map_file(const Path& path, std::uint64_t max_bytes) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return storage_error("cannot open", path, errno);
  const std::shared_ptr<void> closer(nullptr, [fd](void*) { ::close(fd); });
  struct stat about {};
  if (::fstat(fd, &about) != 0) return storage_error("cannot look at", path, errno);
  if (!S_ISREG(about.st_mode)) return fail(ExitCode::storage, path.string(), " is not a regular file");
  const auto size = static_cast<std::size_t>(about.st_size);
  if (size > max_bytes) {
    return fail(ExitCode::storage, path.string(), " has ", size, " bytes, more than the ", max_bytes,
                " that are allowed here");
  }
  if (size == 0) return Buffer::allocate(0);
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (memory == MAP_FAILED) return storage_error("cannot map", path, errno);
  return Buffer{std::shared_ptr<void>(memory, [size](void* mapped) { ::munmap(mapped, size); }),
                {static_cast<std::byte*>(memory), size}};
}

Status make_folder(const Path& folder, FileSystem& files) {
  return files.make_folder(folder);
}

Result<std::vector<FolderEntry>> list_folder(const Path& folder, const FileSystem& files) {
  return files.list_folder(folder);
}

Status remove_all_in(const Path& folder, FileSystem& files) {
  TESSERA_ASSIGN(const std::vector<FolderEntry> entries, files.list_folder(folder));
  for (const FolderEntry& entry : entries) {
    if (entry.is_folder) TESSERA_TRY(remove_all_in(folder / entry.name, files));
    TESSERA_TRY(files.remove(folder / entry.name));
  }
  return {};
}

Status remove_tree(const Path& path, FileSystem& files) {
  // Only a real folder can be listed, so a link is removed as itself.
  if (files.list_folder(path).ok()) TESSERA_TRY(remove_all_in(path, files));
  return files.remove(path);
}

Status remove_leftovers(const Path& folder, FileSystem& files) {
  if (!files.exists(folder)) return {};
  TESSERA_ASSIGN(const std::vector<FolderEntry> entries, files.list_folder(folder));
  for (const FolderEntry& entry : entries) {
    if (entry.name.starts_with(tmp_prefix)) TESSERA_TRY(remove_tree(folder / entry.name, files));
  }
  return {};
}

}  // namespace tessera
