// Names of this machine and of this place in it.
#pragma once
#include <string>

namespace tessera {

std::string host_name();
/// Host name and pid namespace: two processes with the same machine_id can see each other's pids and shared
/// memory.
std::string machine_id();

}  // namespace tessera
