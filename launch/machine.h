// This machine, and this place in it: names and environment.
#pragma once
#include <string>

#include "monitoring/log.h"

namespace tessera {

std::string host_name();
/// Host name and pid namespace: two processes with the same machine_id can see each other's pids and shared
/// memory.
std::string machine_id();
/// What the processes of a run write into their text logs: info, or with TESSERA_LOG=debug in the environment
/// every decision.
LogLevel log_level();

}  // namespace tessera
