// Named arrays in host memory: what batches, contributions, shards and slot states are made of. Torch-free.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/params.h"

namespace tessera {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

/// Shared, 64-byte aligned memory. `keep` may own anything (a heap block, a mapped file).
struct Buffer {
  std::shared_ptr<void> keep;
  MutableBytes bytes;
  static Buffer allocate(std::size_t size);  ///< not initialised
  static Buffer copy_of(Bytes bytes);
};

/// A dense, contiguous, row-major array. Copies share memory; clone() does not.
struct HostTensor {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  Buffer buffer;

  static HostTensor empty(DType dtype, std::vector<std::int64_t> shape);
  static HostTensor zeros(DType dtype, std::vector<std::int64_t> shape);
  template <class T>
  static HostTensor of(DType dtype, std::vector<std::int64_t> shape, const std::vector<T>& values);

  std::int64_t elements() const;
  Bytes bytes() const { return buffer.bytes; }
  HostTensor clone() const;
  /// The elements as T; T's size must be the dtype's.
  template <class T>
  std::span<T> as() const {
    TESSERA_CHECK_EQ(sizeof(T), size_of(dtype));
    return {reinterpret_cast<T*>(buffer.bytes.data()), buffer.bytes.size() / sizeof(T)};
  }
  /// Rows [begin, end) of dimension 0, sharing memory.
  HostTensor rows(Rows range) const;
};

/// Identity is the name; iteration is in sorted order.
using TensorMap = std::map<std::string, HostTensor>;
/// Takes the moments (base/params.h) out of `tensors`.
TensorMap take_moments(TensorMap& tensors);
std::size_t total_bytes(const TensorMap& tensors);
bool bit_equal(const TensorMap& a, const TensorMap& b);

template <class T>
HostTensor HostTensor::of(DType dtype, std::vector<std::int64_t> shape, const std::vector<T>& values) {
  HostTensor tensor = empty(dtype, std::move(shape));
  TESSERA_CHECK_EQ(tensor.elements(), static_cast<std::int64_t>(values.size()));
  std::copy(values.begin(), values.end(), tensor.as<T>().begin());
  return tensor;
}

}  // namespace tessera
