#include "base/params.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace tessera {

std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::u8:
      return 1;
  }
  return 0;
}

const char* safetensors_name(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "F64";
    case DType::f32:
      return "F32";
    case DType::bf16:
      return "BF16";
    case DType::f16:
      return "F16";
    case DType::i64:
      return "I64";
    case DType::i32:
      return "I32";
    case DType::u8:
      return "U8";
  }
  return "?";
}

std::int64_t ParamSpec::row_size() const {
  std::int64_t size = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) size *= shape[i];
  return size;
}

void add_rows(RowSet& set, const std::string& param, Rows rows) {
  if (rows.count() <= 0) return;
  std::vector<Rows>& ranges = set[param];
  ranges.push_back(rows);
  std::sort(ranges.begin(), ranges.end());
  std::vector<Rows> joined;
  for (const Rows& next : ranges) {
    if (!joined.empty() && next.begin <= joined.back().end) {
      joined.back().end = std::max(joined.back().end, next.end);
    } else {
      joined.push_back(next);
    }
  }
  ranges = std::move(joined);
}

void add_rows(RowSet& set, const RowSet& more) {
  for (const auto& [param, ranges] : more) {
    for (const Rows& rows : ranges) add_rows(set, param, rows);
  }
}

std::int64_t elements_in(const RowSet& set, const std::vector<ParamSpec>& specs) {
  std::int64_t total = 0;
  for (const ParamSpec& spec : specs) {
    auto found = set.find(spec.name);
    if (found == set.end()) continue;
    for (const Rows& rows : found->second) total += rows.count() * spec.row_size();
  }
  return total;
}

RowSet common_rows(const RowSet& a, const RowSet& b) {
  RowSet common;
  for (const auto& [param, ranges] : a) {
    const auto others = b.find(param);
    if (others == b.end()) continue;
    for (const Rows& x : ranges) {
      for (const Rows& y : others->second)
        add_rows(common, param, {std::max(x.begin, y.begin), std::min(x.end, y.end)});
    }
  }
  return common;
}

RowSet rows_without(const RowSet& all, const RowSet& taken) {
  RowSet rest;
  for (const auto& [param, ranges] : all) {
    const auto holes = taken.find(param);
    for (const Rows& rows : ranges) {
      std::int64_t next = rows.begin;
      if (holes != taken.end()) {
        for (const Rows& hole : holes->second) {
          add_rows(rest, param, {next, std::min(hole.begin, rows.end)});
          next = std::max(next, hole.end);
        }
      }
      add_rows(rest, param, {next, rows.end});
    }
  }
  return rest;
}

RowSet CutGroup::rows_of(std::int64_t begin, std::int64_t end) const {
  RowSet rows;
  for (const Member& member : members) {
    if (member.only_unit < 0) {
      add_rows(rows, member.param,
               {member.offset + begin * member.rows_per_unit, member.offset + end * member.rows_per_unit});
    } else if (begin <= member.only_unit && member.only_unit < end) {
      add_rows(rows, member.param, {member.offset, member.offset + member.rows_per_unit});
    }
  }
  return rows;
}

std::string piece_name(const std::string& param, Rows rows, std::int64_t all_rows) {
  if (rows.begin == 0 && rows.end == all_rows) return param;
  return param + "[" + std::to_string(rows.begin) + ":" + std::to_string(rows.end) + "]";
}

PieceRows rows_of_piece(const std::string& piece, std::int64_t all_rows) {
  const std::size_t bracket = piece.find('[');
  if (bracket == std::string::npos) return {piece, {0, all_rows}};
  PieceRows found{piece.substr(0, bracket), {}};
  const char *begin = piece.data() + bracket + 1, *const end = piece.data() + piece.size();
  const char* colon = std::from_chars(begin, end, found.rows.begin).ptr;
  if (colon != end) std::from_chars(colon + 1, end, found.rows.end);
  return found;
}

RowSet Plan::owned_by(std::int32_t slot) const {
  RowSet owned;
  for (const Slice& slice : slices) {
    if (!std::binary_search(slice.owners.begin(), slice.owners.end(), slot)) continue;
    add_rows(owned, slice.rows);
  }
  return owned;
}

std::set<std::string> Plan::cut_params() const {
  std::set<std::string> cut;
  for (const Slice& slice : slices) {
    const auto owners = static_cast<std::int32_t>(slice.owners.size());
    if (owners == 0 || owners == slots) continue;  // nobody's turn, or everybody's
    for (const auto& [param, ranges] : slice.rows) cut.insert(param);
  }
  return cut;
}

}  // namespace tessera
