// What a folder of shared memory consists of: files with descriptors and mappings, and the parties that use
// them. Included by transport .cpp only.
#pragma once
#include <sys/stat.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/descriptor.h"
#include "base/error.h"
#include "base/tensor.h"

namespace tessera {

using Inode = std::pair<dev_t, ino_t>;
inline Inode inode_of(const struct stat& info) {
  return {info.st_dev, info.st_ino};
}

/// A whole file in memory, open for as long as it is there: its inode is no other file's meanwhile.
struct Mapping {
  Descriptor fd;
  void* memory;
  std::size_t size;
  Mapping(Descriptor file, void* address, std::size_t bytes)
      : fd(std::move(file)), memory(address), size(bytes) {}
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  /// Of a file that is there in full. Null (and errno) if it cannot be had. `protection` as for mmap.
  static std::shared_ptr<Mapping> make(Descriptor file, std::size_t size, int protection);
  /// Gives an empty file all of its memory at once: a full file system is an error here (errno), and not a
  /// SIGBUS later. On huge pages where the kernel has any, for this and every later mapping.
  static std::shared_ptr<Mapping> make_filled(Descriptor file, std::size_t size);
  MutableBytes bytes() const { return {static_cast<std::byte*>(memory), size}; }
  struct stat about() const;  ///< without any name if it cannot be asked
};
using Mappings = std::map<Inode, std::shared_ptr<Mapping>>;
/// Files that have no name any more will not come back.
void forget_unnamed(Mappings& mappings);

/// What a name of a folder stands for, links not followed; none: nothing.
std::optional<struct stat> look_at(int folder, const std::string& name);
/// Names of a folder that begin so.
std::vector<std::string> names_in(int folder, const std::string& prefix);

/// Makes a party known: holds the lock on "party-NAME" for as long as it lives. Error (storage): no room.
Result<Descriptor> join_as(int folder, const std::string& party);
/// Removes what parties left whose lock can be had: they are dead.
void remove_of_the_dead(int folder);
/// Whether some party lives.
bool is_in_use(int folder);

}  // namespace tessera
