// Between host tensors (base/tensor.h) and LibTorch tensors, without copying where memory can be shared.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "base/tensor.h"

namespace tessera {

at::ScalarType scalar_type(DType dtype);
DType dtype_of(at::ScalarType type);
/// A tensor that shares the host tensor's memory and keeps it alive.
at::Tensor torch_view(const HostTensor& tensor);
std::map<std::string, at::Tensor> torch_views(const TensorMap& tensors);
/// The tensor's own memory, where it lies contiguous in the host's, else a copy.
HostTensor host_view(const at::Tensor& tensor);
/// A host copy of a tensor, wherever that lies.
HostTensor host_copy(const at::Tensor& tensor);

}  // namespace tessera
