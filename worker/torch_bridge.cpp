#include "worker/torch_bridge.h"

#include <ATen/ops/from_blob.h>

#include <cstring>

namespace tessera {

at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return at::kFloat;
    case DType::f64:
      return at::kDouble;
    case DType::bf16:
      return at::kBFloat16;
    case DType::f16:
      return at::kHalf;
    case DType::i64:
      return at::kLong;
    case DType::i32:
      return at::kInt;
    case DType::u8:
      return at::kByte;
  }
  return at::kFloat;
}

DType dtype_of(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return DType::f32;
    case at::kDouble:
      return DType::f64;
    case at::kBFloat16:
      return DType::bf16;
    case at::kHalf:
      return DType::f16;
    case at::kLong:
      return DType::i64;
    case at::kInt:
      return DType::i32;
    case at::kByte:
      return DType::u8;
    default:
      TESSERA_CHECK(false, ": tensors of type ", at::toString(type), " have no host form");
  }
  return DType::f32;
}

at::Tensor torch_view(const HostTensor& tensor) {
  auto keep = tensor.buffer.keep;
  return at::from_blob(
      const_cast<std::byte*>(tensor.bytes().data()), tensor.shape, [keep](void*) {},
      at::TensorOptions().dtype(scalar_type(tensor.dtype)));
}

std::map<std::string, at::Tensor> torch_views(const TensorMap& tensors) {
  std::map<std::string, at::Tensor> views;
  for (const auto& [name, tensor] : tensors) views.emplace(name, torch_view(tensor));
  return views;
}

HostTensor host_view(const at::Tensor& tensor) {
  if (!tensor.is_cpu() || !tensor.is_contiguous()) return host_copy(tensor);
  const at::Tensor kept = tensor.detach();
  return {dtype_of(kept.scalar_type()),
          kept.sizes().vec(),
          {std::make_shared<at::Tensor>(kept),
           {static_cast<std::byte*>(const_cast<void*>(kept.const_data_ptr())), kept.nbytes()}}};
}

HostTensor host_copy(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.detach().cpu().contiguous();
  HostTensor copy = HostTensor::empty(dtype_of(dense.scalar_type()), dense.sizes().vec());
  std::memcpy(copy.buffer.bytes.data(), dense.const_data_ptr(), copy.buffer.bytes.size());
  return copy;
}

}  // namespace tessera
