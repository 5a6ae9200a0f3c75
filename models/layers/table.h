// Look-ups in tables of vectors: embeddings of tokens and of positions.
#pragma once
#include "models/parameter.h"

namespace tessera {

/// Rows of a table [rows, width] by index (int64, any shape) -> [.., width]. Rows of a frozen table that is
/// held in bf16 become fp32 one by one; a split table of which some rows are owned is widened as a whole.
at::Tensor look_up(const Parameter& table, const at::Tensor& indices);
/// The first `count` rows.
at::Tensor first_rows(const Parameter& table, std::int64_t count);

}  // namespace tessera
