// Files as the rest of storage wants them: replaced as a whole or not at all, and folders that are cleaned up
// after a crash. Every failure is an Error{ExitCode::storage} that names the path and the reason.
#pragma once
#include <cstdint>
#include <span>

#include "comm/storage/file_system.h"

namespace tessera {

/// Everything that is written under another name first starts with this; whatever is left of it after a crash
/// is rubbish.
inline constexpr const char* tmp_prefix = ".tmp-";
/// A fresh name for `path` in the same folder: ".tmp-NAME-0123456789abcdef".
Path tmp_name_for(const Path& path);

/// Puts `bytes` (or parts one after the other) at `path`: readers see the old file or the new one, never a
/// mixture, also after a crash. A failed write leaves the old file and no tmp.
Status atomic_write(const Path& path, std::span<const Bytes> parts, Durability durability,
                    FileSystem& files = disk());
Status atomic_write(const Path& path, Bytes bytes, Durability durability, FileSystem& files = disk());
Status atomic_write(const Path& path, std::string_view text, Durability durability,
                    FileSystem& files = disk());

/// The same in the place of `spare`, a file that nobody reads any more (no such file: as above): its blocks
/// are used again, which is several times as fast as having new ones.
Status atomic_replace(const Path& spare, const Path& path, std::span<const Bytes> parts,
                      Durability durability, FileSystem& files = disk());

/// The whole file in memory of its own. Refuses links, devices and files above the cap.
inline constexpr std::uint64_t default_read_cap = std::uint64_t{1} << 40;
Result<Buffer> read_file(const Path& path, std::uint64_t max_bytes = default_read_cap,
                         const FileSystem& files = disk());
/// The file mapped for reading: writing into the buffer is a fault, and cutting the file while it is mapped
/// is one too, so map only what nobody shortens (files that were written by atomic_write).
Result<Buffer> map_file(const Path& path, std::uint64_t max_bytes = default_read_cap);

Status make_folder(const Path& folder, FileSystem& files = disk());
Result<std::vector<FolderEntry>> list_folder(const Path& folder, const FileSystem& files = disk());
/// Removes what is in a folder, folders too, but not the folder; links are removed, not followed.
Status remove_all_in(const Path& folder, FileSystem& files = disk());
/// Removes a file, or a folder with all that is in it.
Status remove_tree(const Path& path, FileSystem& files = disk());
/// Removes the ".tmp-*" that a crash left in a folder; a missing folder is fine. Call it while no other
/// writer is alive.
Status remove_leftovers(const Path& folder, FileSystem& files = disk());

}  // namespace tessera
