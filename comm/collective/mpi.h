// A group whose ranks are the processes of one mpirun or srun. Open MPI ends the whole job when a rank dies,
// so a group never spans workers that must survive each other (DESIGN: "scale").
#pragma once
#include <memory>

#include "comm/collective/collective.h"

namespace tessera {

/// Joins MPI's world; initialises MPI unless the process already did. At most one at a time per process. MPI
/// is finalised when it is destroyed, after which it cannot be joined again. Errors: MPI refuses to start.
Result<std::unique_ptr<Collective>> join_mpi_world();

}  // namespace tessera
