// The shared-memory way of the bulk path: a folder (under /dev/shm) where parties of one host leave blobs as
// files named by their digest. A party uses its files and its mappings of others' again and again, since
// fresh pages cost several times what it takes to fill them.
#pragma once
#include <memory>
#include <string>

#include "base/error.h"
#include "comm/blob.h"

namespace tessera {

/// Safe to use from several threads. The folder belongs to whoever launched the parties: nothing here removes
/// it, and files of a party that was killed stay until it goes.
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
  /// again when nobody here holds the buffer any more and the blob is removed. Error (storage): no room.
  Result<Buffer> allocate(std::size_t size);
  /// Makes the blob known under its digest (mode 0600) and returns its path; copies it unless it lies in
  /// memory of allocate(). Error (storage) when the folder is full.
  Result<std::string> publish(const Blob& blob);
  void remove(const Digest& digest);

  /// Maps what `publish` made, read-only. The bytes may change at any time, once the blob is removed: copy
  /// them and verify the digest of the copy. Only <this folder>/<digest of ref> is ever opened, without
  /// following links, and only as a plain file of exactly ref.size bytes.
  Result<Buffer> map(const BlobRef& ref);
  /// Whether ref.path names this folder's file for ref.digest.
  bool is_path_of(const BlobRef& ref) const;

 private:
  SharedFolder(int descriptor, std::string canonical);
  struct Files;
  int descriptor_;
  std::string folder_;  ///< canonical
  std::shared_ptr<Files> files_;
};

}  // namespace tessera
