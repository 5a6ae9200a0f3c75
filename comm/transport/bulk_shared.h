// The shared-memory way of the bulk path: a folder (under /dev/shm) where parties of one host leave blobs as
// files named by their digest.
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
  ~SharedFolder();
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;

  /// Writes the blob (temporary file, then rename; mode 0600) and returns its path. Error (storage) when the
  /// folder is full.
  Result<std::string> publish(const Blob& blob) const;
  void remove(const Digest& digest) const;

  /// Maps what `publish` made, read-only; the digest is NOT verified yet. Only <this folder>/<digest of ref>
  /// is ever opened, without following links, and only as a plain file of exactly ref.size bytes.
  Result<Buffer> map(const BlobRef& ref) const;
  /// Whether ref.path names this folder's file for ref.digest.
  bool is_path_of(const BlobRef& ref) const;

 private:
  SharedFolder(int descriptor, std::string canonical)
      : descriptor_(descriptor), folder_(std::move(canonical)) {}
  int descriptor_;
  std::string folder_;  ///< canonical
};

}  // namespace tessera
