// Slot states on the worker's disk: slots/KK/DIGEST.safetensors under the run directory, the newest few kept,
// so that whoever takes over a slot on this machine finds the state that the coordinator's grant names.
#pragma once
#include <string>

#include "base/error.h"
#include "base/ids.h"
#include "base/tensor.h"
#include "comm/blob.h"
#include "comm/storage/files.h"

namespace tessera {

class SlotStore {
 public:
  /// `folder` is "slots" of a run directory, or the worker's own.
  explicit SlotStore(std::string folder) : folder_(std::move(folder)) {}
  /// Writes the encoded state of a slot; older ones beyond the three newest go. The digest is state_digest of
  /// the tensors.
  Status save(SlotId slot, const Digest& digest, Bytes encoded, Durability durability) const;
  /// The state with this digest, verified. Error: not here, or damaged.
  Result<TensorMap> load(SlotId slot, const Digest& digest) const;

 private:
  std::string folder_of(SlotId slot) const;
  std::string folder_;
};

}  // namespace tessera
