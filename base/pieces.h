// Pieces of parameters: tensors by piece_name (base/params.h), and finding rows in whatever pieces there are.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/params.h"
#include "base/tensor.h"

namespace tessera {

/// The rows that pieces name, a bare name the whole parameter. Aborts where no spec has such rows, or two
/// pieces share some.
RowSet rows_of_pieces(const std::vector<std::string>& pieces, const std::vector<ParamSpec>& specs);
/// The reverse, parameters in the order of the specs.
std::vector<std::string> pieces_of_rows(const RowSet& rows, const std::vector<ParamSpec>& specs);

/// Adds rows of whole tensors by name to `pieces`, sharing memory. "KIND/" as prefix: of the tensors
/// "KIND/NAME", as "KIND/PIECE", where there are such.
void add_pieces(TensorMap& pieces, const TensorMap& whole, const RowSet& rows,
                const std::string& prefix = {});

/// "blocks.3" of "blocks.3.mlp.up": the layer that a parameter belongs to; empty: it is in none.
std::string layer_of(const std::string& param);

struct PieceOf {
  Rows rows;
  HostTensor values;  ///< of these rows; shares memory
};
/// What `pieces` hold of these rows of a parameter.
std::vector<PieceOf> pieces_within(const TensorMap& pieces, const std::string& param, Rows rows);
/// The same where one piece holds all of the rows; sharing its memory.
std::optional<HostTensor> find_rows(const TensorMap& pieces, const std::string& param, Rows rows);
/// What `pieces` hold of rows, cut at the ranges' ends; sharing memory.
TensorMap pieces_of(const TensorMap& pieces, const RowSet& rows, const std::vector<ParamSpec>& specs);
/// `pieces` without these rows. What stays shares memory.
TensorMap pieces_without(const TensorMap& pieces, const RowSet& rows);

}  // namespace tessera
