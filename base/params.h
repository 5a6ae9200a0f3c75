// Parameters as all rooms speak of them: specs with names and shapes, row ranges, and what a family says can
// be cut together. A cut is always along dimension 0: families store the dimension that can be cut first
// (hidden units, heads), so every owned piece of every tensor is one contiguous range of rows and of bytes.
#pragma once
#include <compare>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace tessera {

enum class DType : std::uint8_t { f32, f64, bf16, f16, i64, i32, u8 };
std::size_t size_of(DType dtype);           ///< bytes per element
const char* safetensors_name(DType dtype);  ///< "F32", "BF16", ...

enum class Role : std::uint8_t {
  weight,  ///< trained, merged with the outer rule
  buffer,  ///< follows the data (batch norm): merged by mean, without momentum
  local,   ///< belongs to a slot, never sent
  frozen,  ///< a weight that stays as it began: nobody trains it, so it is never sent
};
/// Whether slots and coordinator exchange parameters of this role.
inline bool travels(Role role) {
  return role == Role::weight || role == Role::buffer;
}

struct ParamSpec {
  std::string name;                 ///< "blocks.3.mlp.up"
  std::vector<std::int64_t> shape;  ///< rows first
  Role role = Role::weight;
  std::string group = "default";  ///< "ends": not between two layers (tables, head); optimizers may differ
  bool decay = true;              ///< weight decay applies (off for gains, biases)
  /// Multiply-adds of the forward pass per element and token: 1 for the matrix of a product, 0 for what is
  /// looked up or added (an embedding table counts by its use as output head).
  double products = 0;

  std::int64_t rows() const { return shape.empty() ? 1 : shape[0]; }
  std::int64_t row_size() const;  ///< elements per row
  std::int64_t elements() const { return rows() * row_size(); }
};

/// Rows [begin, end) of a parameter.
struct Rows {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  auto operator<=>(const Rows&) const = default;
  std::int64_t count() const { return end - begin; }
};

/// Which rows of which parameters; ranges sorted, disjoint, and joined where they touch. Identity is the
/// name.
using RowSet = std::map<std::string, std::vector<Rows>>;
void add_rows(RowSet& set, const std::string& param, Rows rows);
void add_rows(RowSet& set, const RowSet& more);
std::int64_t elements_in(const RowSet& set, const std::vector<ParamSpec>& specs);
RowSet common_rows(const RowSet& a, const RowSet& b);
RowSet rows_without(const RowSet& all, const RowSet& taken);
/// "name[begin:end]", or the bare name for the whole parameter: the key of a piece in files and messages.
std::string piece_name(const std::string& param, Rows rows, std::int64_t all_rows);
struct PieceRows {
  std::string param;
  Rows rows;
};
/// The reverse of piece_name.
PieceRows rows_of_piece(const std::string& piece, std::int64_t all_rows);

/// Moments of an inner optimizer that travel with their rows: "moment.exp_avg/blocks.0.mlp.up[0:64]".
inline constexpr const char* moment_prefix = "moment.";
inline std::string moment_name(const std::string& moment, const std::string& piece) {
  return moment_prefix + moment + "/" + piece;
}

/// Parameters that a family declares to be cuttable together: unit u owns rows [offset + u*rows_per_unit, +
/// rows_per_unit) of each member. Hidden unit u of an MLP: row u of up and gate, entry u of their bias, row u
/// of down (stored [hidden, width]). A member may also belong to one unit alone: a block's tensors to that
/// block.
struct CutGroup {
  std::string name;  ///< "blocks.3.mlp"
  std::string kind;  ///< which cut settings select it: "mlp", "heads", "layer"
  std::string unit;  ///< what is counted: "units", "groups", "layers"
  std::int64_t units = 0;
  struct Member {
    std::string param;
    std::int64_t rows_per_unit = 1;
    std::int64_t offset = 0;
    std::int64_t only_unit = -1;  ///< the unit that alone owns rows [offset, + rows_per_unit); -1: spread
  };
  std::vector<Member> members;
  /// Rows of the units [begin, end).
  RowSet rows_of(std::int64_t begin, std::int64_t end) const;
};

/// A named piece of parameters that is owned as one: "blocks.3.mlp/units[512:1024]", "shared".
struct Slice {
  std::string name;
  RowSet rows;
  std::vector<std::int32_t> owners;  ///< slots, ascending
};

/// Who trains what. Slices tile every trainable parameter exactly.
struct Plan {
  std::int32_t slots = 0;
  std::vector<Slice> slices;
  bool may_rest = false;           ///< slices may have no owner: their rounds come later
  std::vector<std::string> notes;  ///< sentences on what a user might not expect
  RowSet owned_by(std::int32_t slot) const;
  /// Parameters that are divided: some of their rows are not owned by all slots.
  std::set<std::string> cut_params() const;
};

}  // namespace tessera
