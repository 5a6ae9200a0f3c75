// Tensors that a batch may have beside those of the data, by name.
#pragma once

namespace tessera {

/// One int64: the bits of the key from which a training step draws (dropout), a function of run seed, slot
/// and slot's step (base/random.h). Absent: nothing is drawn, as in evaluation. Parts of one step's batch
/// need keys of their own.
inline constexpr const char* batch_draws = "draws";
/// [B], int64, in the CPU's memory: how many positions of each sequence are valid, the others being padding
/// at its end. Absent: all.
inline constexpr const char* batch_lengths = "lengths";

}  // namespace tessera
