// A group whose ranks are threads of this process: for tests, and as the yardstick of the other back ends.
#pragma once
#include <chrono>
#include <memory>
#include <vector>

#include "comm/collective/collective.h"

namespace tessera {

/// One end per rank; each is used by one thread at a time. A call fails, on all ranks alike, when the ranks
/// do not agree on what is called (operation, size, root), when a rank's end is destroyed, or when a rank
/// stays away for `patience`; from then on every call of the group fails.
std::vector<std::unique_ptr<Collective>> make_inproc_group(
    int size, std::chrono::milliseconds patience = std::chrono::minutes(1));

}  // namespace tessera
