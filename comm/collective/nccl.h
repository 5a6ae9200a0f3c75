// A group whose ranks are GPUs, one per thread or process (NVIDIA's NCCL). Part of the CUDA plug-in.
#pragma once
#include <array>
#include <memory>

#include "comm/collective/collective.h"

namespace tessera {

/// Names a group: rank 0 draws it and the others are told by any other means.
using NcclGroupId = std::array<std::byte, 128>;
Result<NcclGroupId> draw_nccl_group_id();

/// Joins as `rank` of `size` with the GPU `device`; returns when all ranks have come. Spans given to the
/// group may lie in that GPU's memory, where they are summed in place, or in host memory, from which they are
/// copied and back. Errors: no such device, another rank died, versions differ; NCCL's own words are part of
/// the message.
Result<std::unique_ptr<Collective>> join_nccl_group(const NcclGroupId& id, int rank, int size, int device);

}  // namespace tessera
