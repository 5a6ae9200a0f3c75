#include "base/pieces.h"

#include <algorithm>
#include <cctype>

#include "base/error.h"

namespace tessera {
namespace {

std::int64_t rows_in(const HostTensor& tensor) {
  return tensor.shape.empty() ? 1 : tensor.shape[0];
}

/// Rows of a tensor; a scalar has one.
HostTensor view_of(const HostTensor& tensor, Rows rows) {
  return rows == Rows{0, rows_in(tensor)} ? tensor : tensor.rows(rows);
}

}  // namespace

RowSet rows_of_pieces(const std::vector<std::string>& pieces, const std::vector<ParamSpec>& specs) {
  std::map<std::string, std::int64_t> known;
  for (const ParamSpec& spec : specs) known.emplace(spec.name, spec.rows());
  RowSet rows;
  for (const std::string& piece : pieces) {
    const auto param = known.find(piece.substr(0, piece.find('[')));
    TESSERA_CHECK(param != known.end(), ": no parameter named ", piece);
    const Rows range = rows_of_piece(piece, param->second).rows;
    TESSERA_CHECK(0 <= range.begin && range.begin < range.end && range.end <= param->second,
                  ": no such piece: ", piece);
    TESSERA_CHECK(common_rows(rows, {{param->first, {range}}}).empty(), ": rows of ", piece, " twice");
    add_rows(rows, param->first, range);
  }
  return rows;
}

std::vector<std::string> pieces_of_rows(const RowSet& rows, const std::vector<ParamSpec>& specs) {
  std::vector<std::string> pieces;
  for (const ParamSpec& spec : specs) {
    const auto ranges = rows.find(spec.name);
    if (ranges == rows.end()) continue;
    for (const Rows& range : ranges->second) pieces.push_back(piece_name(spec.name, range, spec.rows()));
  }
  return pieces;
}

std::string layer_of(const std::string& param) {
  for (std::size_t begin = 0; begin < param.size();) {
    const std::size_t end = std::min(param.find('.', begin), param.size());
    const bool number = end > begin && std::all_of(param.begin() + static_cast<std::ptrdiff_t>(begin),
                                                   param.begin() + static_cast<std::ptrdiff_t>(end),
                                                   [](unsigned char c) { return std::isdigit(c) != 0; });
    if (number) return param.substr(0, end);
    begin = end + 1;
  }
  return {};
}

void add_pieces(TensorMap& pieces, const TensorMap& whole, const RowSet& rows, const std::string& prefix) {
  for (const auto& [param, ranges] : rows) {
    const auto tensor = whole.find(prefix + param);
    if (tensor == whole.end()) continue;
    for (const Rows& range : ranges)
      pieces.emplace(prefix + piece_name(param, range, rows_in(tensor->second)),
                     view_of(tensor->second, range));
  }
}

std::vector<PieceOf> pieces_within(const TensorMap& pieces, const std::string& param, Rows rows) {
  std::vector<PieceOf> found;
  for (auto at = pieces.lower_bound(param); at != pieces.end() && at->first.starts_with(param); ++at) {
    const PieceRows piece = rows_of_piece(at->first, rows_in(at->second));
    const Rows common{std::max(rows.begin, piece.rows.begin), std::min(rows.end, piece.rows.end)};
    if (piece.param != param || common.count() <= 0) continue;
    const std::int64_t begin = common.begin - piece.rows.begin;
    found.push_back({common, view_of(at->second, {begin, begin + common.count()})});
  }
  return found;
}

std::optional<HostTensor> find_rows(const TensorMap& pieces, const std::string& param, Rows rows) {
  for (PieceOf& piece : pieces_within(pieces, param, rows)) {
    if (piece.rows == rows) return std::move(piece.values);
  }
  return std::nullopt;
}

TensorMap pieces_of(const TensorMap& pieces, const RowSet& rows, const std::vector<ParamSpec>& specs) {
  TensorMap found;
  for (const ParamSpec& spec : specs) {
    const auto ranges = rows.find(spec.name);
    if (ranges == rows.end()) continue;
    for (const Rows& range : ranges->second) {
      for (PieceOf& piece : pieces_within(pieces, spec.name, range))
        found.emplace(piece_name(spec.name, piece.rows, spec.rows()), std::move(piece.values));
    }
  }
  return found;
}

TensorMap pieces_without(const TensorMap& pieces, const RowSet& rows) {
  TensorMap left;
  for (const auto& [name, tensor] : pieces) {
    const PieceRows piece = rows_of_piece(name, rows_in(tensor));
    for (const auto& [param, ranges] : rows_without({{piece.param, {piece.rows}}}, rows)) {
      for (const Rows& range : ranges) {
        const std::int64_t begin = range.begin - piece.rows.begin;
        left.emplace(range == piece.rows ? name : piece_name(param, range, -1),
                     view_of(tensor, {begin, begin + range.count()}));
      }
    }
  }
  return left;
}

}  // namespace tessera
