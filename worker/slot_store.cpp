#include "worker/slot_store.h"

#include <algorithm>
#include <cstdio>

#include "comm/hash.h"
#include "comm/storage/safetensors.h"

namespace tessera {
namespace {
constexpr std::size_t states_kept = 3;  // committed, pushed, and one that a torn publish may still ask for
}

std::string SlotStore::folder_of(SlotId slot) const {
  char name[16];
  std::snprintf(name, sizeof name, "/%02d", slot.value);
  return folder_ + name;
}

Status SlotStore::save(SlotId slot, const Digest& digest, Bytes encoded, Durability durability) const {
  const std::string folder = folder_of(slot);
  TESSERA_TRY(make_folder(folder_));
  TESSERA_TRY(make_folder(folder));
  TESSERA_TRY(atomic_write(folder + "/" + digest.hex() + ".safetensors", encoded, durability));
  TESSERA_ASSIGN(auto entries, list_folder(folder));
  std::vector<std::pair<std::filesystem::file_time_type, std::string>> states;
  for (const FolderEntry& entry : entries) {
    const std::string path = folder + "/" + entry.name;
    std::error_code gone;
    const auto time = std::filesystem::last_write_time(path, gone);
    const bool just_written = entry.name == digest.hex() + ".safetensors";  // whatever a coarse clock says
    if (!gone && !just_written && entry.name.ends_with(".safetensors")) states.emplace_back(time, path);
  }
  std::sort(states.rbegin(), states.rend());
  for (std::size_t i = states_kept - 1; i < states.size(); ++i) TESSERA_TRY(remove_tree(states[i].second));
  return {};
}

Result<TensorMap> SlotStore::load(SlotId slot, const Digest& digest) const {
  const std::string path = folder_of(slot) + "/" + digest.hex() + ".safetensors";
  TESSERA_ASSIGN(auto bytes, read_file(path));
  TESSERA_ASSIGN(auto file, decode_safetensors(bytes, path));
  if (state_digest(file.tensors) != digest) {
    return fail(ExitCode::storage, path, " is damaged: its tensors do not have the digest in its name");
  }
  std::error_code ignored;  // a state to go back to must outlive the attempts that start from it
  std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now(), ignored);
  return std::move(file.tensors);
}

}  // namespace tessera
