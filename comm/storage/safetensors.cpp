#include "comm/storage/safetensors.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <vector>

#include "base/stream_copy.h"

namespace tessera {
namespace {
using nlohmann::json;

constexpr const char* metadata_key = "__metadata__";
constexpr std::size_t data_alignment = 64;

constexpr DType all_dtypes[] = {DType::f32, DType::f64, DType::bf16, DType::f16,
                                DType::i64, DType::i32, DType::u8};

std::optional<DType> dtype_named(const std::string& name) {
  for (DType dtype : all_dtypes) {
    if (name == safetensors_name(dtype)) return dtype;
  }
  return std::nullopt;
}

/// What goes wrong in a file: "PATH: tensor 'w': reason".
struct Place {
  std::string_view where;
  std::string_view tensor{};
  template <class... Parts>
  Error refuse(const Parts&... reason) const {
    if (tensor.empty()) return fail(ExitCode::storage, where, ": ", reason...);
    return fail(ExitCode::storage, where, ": tensor '", tensor, "': ", reason...);
  }
};

struct Entry {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  ///< within the data
};

/// JSON objects may repeat a key and parsers then keep one of the two silently; different readers would see
/// different tensors.
Result<json> parse_header(std::string_view text, const Place& place) {
  std::vector<std::set<std::string>> keys;
  std::string repeated;
  bool deep = false;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.empty()) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) repeated = key;
    }
    deep = deep || depth > 3;
    return depth <= 3;
  };
  json header = json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (deep) return place.refuse("the header is nested deeper than the format");
  if (header.is_discarded()) return place.refuse("the header is not JSON");
  if (!repeated.empty())
    return place.refuse("the header has two entries '", repeated.substr(0, safetensors_name_cap), "'");
  if (!header.is_object()) return place.refuse("the header is not a JSON object");
  return header;
}

Result<std::vector<std::uint64_t>> unsigned_list(const json& tensor, const char* key, const Place& place) {
  const auto found = tensor.find(key);
  if (found == tensor.end() || !found->is_array()) return place.refuse("has no list '", key, "'");
  std::vector<std::uint64_t> list;
  for (const json& item : *found) {
    if (!item.is_number_unsigned())
      return place.refuse("'", key, "' holds something that is not a whole number");
    list.push_back(item.get<std::uint64_t>());
  }
  return list;
}

Result<Entry> read_entry(const std::string& name, const json& tensor, std::string_view where) {
  if (!is_tensor_name(name)) {
    return Place{where}.refuse("a tensor's name is not 1..", safetensors_name_cap,
                               " letters, digits and . _ - / [ ] : +");
  }
  const Place place{where, name};
  if (!tensor.is_object() || tensor.size() != 3)
    return place.refuse("its entry is not {dtype, shape, data_offsets}");
  Entry entry;
  entry.name = name;
  const auto type = tensor.find("dtype");
  if (type == tensor.end() || !type->is_string()) return place.refuse("has no dtype");
  const std::optional<DType> dtype = dtype_named(type->get_ref<const std::string&>());
  if (!dtype) return place.refuse("its dtype is none of F32 F64 BF16 F16 I64 I32 U8");
  entry.dtype = *dtype;
  TESSERA_ASSIGN(const std::vector<std::uint64_t> shape, unsigned_list(tensor, "shape", place));
  TESSERA_ASSIGN(const std::vector<std::uint64_t> offsets, unsigned_list(tensor, "data_offsets", place));
  if (shape.size() > safetensors_rank_cap)
    return place.refuse("has rank ", shape.size(), ", more than ", safetensors_rank_cap);
  if (offsets.size() != 2 || offsets[0] > offsets[1])
    return place.refuse("its data_offsets are not [begin, end]");
  std::uint64_t bytes = size_of(entry.dtype);
  for (std::uint64_t dimension : shape) {
    // Against int64 too: shapes are signed everywhere else.
    if (dimension > INT64_MAX || __builtin_mul_overflow(bytes, dimension, &bytes) || bytes > INT64_MAX) {
      return place.refuse("its shape is larger than any memory");
    }
    entry.shape.push_back(static_cast<std::int64_t>(dimension));
  }
  entry.begin = offsets[0];
  entry.end = offsets[1];
  if (entry.end - entry.begin != bytes) {
    return place.refuse("its shape takes ", bytes, " bytes, its data_offsets ", entry.end - entry.begin);
  }
  return entry;
}

Result<std::map<std::string, std::string>> read_metadata(const json& value, const Place& place) {
  if (!value.is_object()) return place.refuse("its ", metadata_key, " is not an object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) return place.refuse("its ", metadata_key, " holds something that is not text");
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

/// A view of the file, or a copy where the type could not be read in place.
HostTensor tensor_at(const Entry& entry, const Buffer& file, MutableBytes data) {
  const MutableBytes bytes = data.subspan(entry.begin, entry.end - entry.begin);
  const bool aligned = reinterpret_cast<std::uintptr_t>(bytes.data()) % size_of(entry.dtype) == 0;
  return {entry.dtype, entry.shape, aligned ? Buffer{file.keep, bytes} : Buffer::copy_of(bytes)};
}

/// The tensors as the file has them.
std::vector<const TensorMap::value_type*> in_file_order(const TensorMap& tensors) {
  std::vector<const TensorMap::value_type*> order;
  for (const auto& item : tensors) {
    TESSERA_CHECK(is_tensor_name(item.first), ": tensor name '", item.first, "'");
    TESSERA_CHECK_LE(item.second.shape.size(), safetensors_rank_cap);
    TESSERA_CHECK_EQ(item.second.bytes().size(), item.second.elements() * size_of(item.second.dtype));
    order.push_back(&item);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return size_of(a->second.dtype) > size_of(b->second.dtype);
  });
  return order;
}

/// The parts one after the other in one buffer. `seen(part, bytes)` is called for all of it in order, and
/// leaves the bytes in the cache for the copy.
template <class Seen>
Buffer joined(const std::vector<Buffer>& parts, const std::function<Buffer(std::size_t)>& allocate,
              const Seen& seen) {
  constexpr std::size_t at_once = 128 << 10;
  std::size_t size = 0;
  for (const Buffer& part : parts) size += part.bytes.size();
  Buffer file = allocate(size);
  std::size_t at = 0;
  for (std::size_t part = 0; part < parts.size(); ++part) {
    const Bytes bytes = parts[part].bytes;
    for (std::size_t done = 0; done < bytes.size(); done += at_once) {
      const Bytes from = bytes.subspan(done, std::min(at_once, bytes.size() - done));
      seen(part, from);
      stream_copy(file.bytes.data() + at, from.data(), from.size(), size);
      at += from.size();
    }
  }
  return file;
}

}  // namespace

bool is_tensor_name(std::string_view name) {
  if (name.empty() || name.size() > safetensors_name_cap || name == metadata_key) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("._-/[]:+").find(c) != std::string_view::npos;
  });
}

std::vector<Buffer> safetensors_parts(const TensorMap& tensors,
                                      const std::map<std::string, std::string>& metadata) {
  const std::vector<const TensorMap::value_type*> order = in_file_order(tensors);
  json header = json::object();
  if (!metadata.empty()) header[metadata_key] = metadata;
  std::uint64_t offset = 0;
  for (const auto* item : order) {
    const HostTensor& tensor = item->second;
    const std::uint64_t end = offset + tensor.bytes().size();
    header[item->first] = {
        {"dtype", safetensors_name(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  text.append((data_alignment - (8 + text.size()) % data_alignment) % data_alignment, ' ');
  TESSERA_CHECK_LE(text.size(), safetensors_header_cap);
  const std::uint64_t length = text.size();
  std::vector<Buffer> parts{Buffer::allocate(8 + text.size())};
  std::memcpy(parts[0].bytes.data(), &length, 8);
  std::memcpy(parts[0].bytes.data() + 8, text.data(), text.size());
  for (const auto* item : order) parts.push_back(item->second.buffer);
  return parts;
}

Buffer encode_safetensors(const TensorMap& tensors, const std::map<std::string, std::string>& metadata,
                          const std::function<Buffer(std::size_t)>& allocate) {
  return joined(safetensors_parts(tensors, metadata), allocate, [](std::size_t, Bytes) {});
}

Blob safetensors_blob(const TensorMap& tensors, const std::function<Buffer(std::size_t)>& allocate,
                      TensorDigests* digests) {
  Hasher of_file;
  std::vector<std::pair<std::string, Hasher>> of_tensors;
  if (digests != nullptr) {
    for (const auto* item : in_file_order(tensors))
      of_tensors.emplace_back(item->first, tensor_hasher(item->first, item->second));
  }
  Buffer file = joined(safetensors_parts(tensors), allocate, [&](std::size_t part, Bytes bytes) {
    of_file.add(bytes);
    if (part > 0 && digests != nullptr) of_tensors[part - 1].second.add(bytes);  // the header is the first
  });
  for (const auto& [name, hasher] : of_tensors) digests->emplace(name, hasher.digest());
  return {std::move(file), of_file.digest()};
}

Result<SafetensorsFile> decode_safetensors(Buffer file, std::string_view where) {
  const Place place{where};
  if (file.bytes.size() < 8) return place.refuse("has ", file.bytes.size(), " bytes, too few for a header");
  std::uint64_t length = 0;
  std::memcpy(&length, file.bytes.data(), 8);
  if (length > safetensors_header_cap)
    return place.refuse("its header claims ", length, " bytes, more than 16 MiB");
  if (length > file.bytes.size() - 8) return place.refuse("is cut short within its header");
  const MutableBytes data = file.bytes.subspan(8 + length);
  TESSERA_ASSIGN(const json header, parse_header({reinterpret_cast<const char*>(file.bytes.data()) + 8,
                                                  static_cast<std::size_t>(length)},
                                                 place));
  SafetensorsFile result;
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == metadata_key) {
      TESSERA_ASSIGN(result.metadata, read_metadata(value, place));
    } else {
      TESSERA_ASSIGN(Entry entry, read_entry(name, value, where));
      entries.push_back(std::move(entry));
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  std::uint64_t covered = 0;
  for (const Entry& entry : entries) {
    const Place tensor{where, entry.name};
    if (entry.begin != covered) {
      return tensor.refuse("begins at ", entry.begin, " where ", covered,
                           " is expected (a gap or an overlap)");
    }
    if (entry.end > data.size())
      return tensor.refuse("ends at ", entry.end, " of ", data.size(), " bytes: the file is cut short");
    covered = entry.end;
    result.tensors[entry.name] = tensor_at(entry, file, data);
  }
  if (covered != data.size())
    return place.refuse(data.size() - covered, " bytes after the last tensor belong to none");
  return result;
}

}  // namespace tessera
