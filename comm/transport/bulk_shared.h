// The shared-memory way of the bulk path: a folder (under /dev/shm) where parties of one host leave blobs as
// files named by their digest, and read each other's in place. A file is used again once nobody reads it any
// more, since fresh pages cost several times what it takes to fill them.
#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/error.h"
#include "comm/blob.h"

namespace tessera {

/// Safe to use from several threads. The folder belongs to whoever launched the parties, who remove it; what
/// a killed party left there goes when the next one opens the folder. Names: DIGEST (published), own-PARTY-N
/// (a party fills it), held-PARTY-N (a party reads it), spare-SIZE-RANDOM (for anybody who needs one of that
/// size), kept-DIGEST (outlasts its party: RunStore), party-PARTY (locked while the party lives). A file may
/// have several of these names, and only one that has a single name is written again.
class SharedFolder {
 public:
  /// Opens the folder, made with mode 0700 if it is not there. Error (usage) if it is not a folder, is owned
  /// by another user or open to others.
  static Result<std::unique_ptr<SharedFolder>> open(const std::string& folder);
  /// Removes its own files.
  ~SharedFolder();
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;

  /// Memory for a blob that is to be published: a file of this folder that nobody has heard of. It is used
  /// again when nobody here holds the buffer any more, the blob is removed, and no party holds it. Error
  /// (storage): no room.
  Result<Buffer> allocate(std::size_t size);
  /// Makes the blob known under its digest (mode 0600) and returns its path; copies it unless it lies in
  /// memory of allocate(). From now on its bytes must stay what they are. Error (storage) when the folder is
  /// full.
  Result<std::string> publish(const Blob& blob);
  void remove(const Digest& digest);

  /// What `publish` made, read-only and in place. The file is not used again before the last holder of the
  /// buffer lets it go, even if its writer removes the blob or dies; that its bytes are those of the digest
  /// is to be verified. Only <this folder>/<digest of ref> is ever opened, without following links, and only
  /// as a plain file of exactly ref.size bytes.
  Result<Buffer> hold(const BlobRef& ref);
  /// A path of the file that a buffer of hold() lies in; empty: it does not.
  std::string path_of(const Buffer& held) const;
  /// Whether ref.path names this folder's file for ref.digest.
  bool is_path_of(const BlobRef& ref) const;

 private:
  struct Files;
  explicit SharedFolder(std::shared_ptr<Files> files) : files_(std::move(files)) {}
  std::shared_ptr<Files> files_;  ///< shared with the buffers that are out
};

/// Names that others give files of such a folder.
inline constexpr std::string_view kept_prefix = "kept-";
std::string kept_name(const Digest& digest);
std::string spare_name(std::size_t size);
/// Removes such a folder: all of it, or `but_kept`, all but what is kept, if there is any.
void remove_shared_folder(const std::string& folder, bool but_kept);
/// Removes such folders of this user whose paths begin so, in which for so long nothing happened, no party
/// lives and nothing is kept: their launcher was killed, and nobody came back.
void remove_deserted_folders(const std::string& prefix, Duration quiet = std::chrono::hours(24));

}  // namespace tessera
