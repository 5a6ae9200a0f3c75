#include "base/tensor.h"

#include <cstdlib>
#include <cstring>
#include <new>

namespace tessera {

Buffer Buffer::allocate(std::size_t size) {
  constexpr std::size_t alignment = 64;
  const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return {std::shared_ptr<void>(memory, std::free), {static_cast<std::byte*>(memory), size}};
}

Buffer Buffer::copy_of(Bytes bytes) {
  Buffer buffer = allocate(bytes.size());
  if (!bytes.empty()) std::memcpy(buffer.bytes.data(), bytes.data(), bytes.size());
  return buffer;
}

HostTensor HostTensor::empty(DType dtype, std::vector<std::int64_t> shape) {
  HostTensor tensor{dtype, std::move(shape), {}};
  tensor.buffer = Buffer::allocate(static_cast<std::size_t>(tensor.elements()) * size_of(dtype));
  return tensor;
}

HostTensor HostTensor::zeros(DType dtype, std::vector<std::int64_t> shape) {
  HostTensor tensor = empty(dtype, std::move(shape));
  std::memset(tensor.buffer.bytes.data(), 0, tensor.buffer.bytes.size());
  return tensor;
}

std::int64_t HostTensor::elements() const {
  std::int64_t count = 1;
  for (std::int64_t dimension : shape) count *= dimension;
  return count;
}

HostTensor HostTensor::clone() const {
  return {dtype, shape, Buffer::copy_of(buffer.bytes)};
}

HostTensor HostTensor::rows(Rows range) const {
  TESSERA_CHECK(!shape.empty());
  TESSERA_CHECK(0 <= range.begin && range.begin <= range.end && range.end <= shape[0]);
  HostTensor view = *this;
  view.shape[0] = range.count();
  const std::size_t row = shape[0] == 0 ? 0 : buffer.bytes.size() / static_cast<std::size_t>(shape[0]);
  view.buffer.bytes = buffer.bytes.subspan(row * range.begin, row * range.count());
  return view;
}

TensorMap take_moments(TensorMap& tensors) {
  TensorMap moments;
  for (auto at = tensors.lower_bound(moment_prefix);
       at != tensors.end() && at->first.starts_with(moment_prefix);)
    moments.insert(tensors.extract(at++));
  return moments;
}

std::size_t total_bytes(const TensorMap& tensors) {
  std::size_t total = 0;
  for (const auto& [name, tensor] : tensors) total += tensor.bytes().size();
  return total;
}

bool bit_equal(const TensorMap& a, const TensorMap& b) {
  if (a.size() != b.size()) return false;
  for (auto x = a.begin(), y = b.begin(); x != a.end(); ++x, ++y) {
    if (x->first != y->first || x->second.dtype != y->second.dtype || x->second.shape != y->second.shape)
      return false;
    if (std::memcmp(x->second.bytes().data(), y->second.bytes().data(), x->second.bytes().size()) != 0)
      return false;
  }
  return true;
}

}  // namespace tessera
