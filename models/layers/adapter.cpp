#include "models/layers/adapter.h"

#include <ATen/TensorOperators.h>

namespace tessera {

// B A is never formed: through the rank, a token costs rank (units + width) multiplications.

at::Tensor adapted_out(const at::Tensor& x, const Parameter& weight, const Adapter& adapter) {
  return linear_out(x, weight) + linear_out(linear_out(x, adapter.a), adapter.b) * adapter.scale;
}

at::Tensor adapted_in(const at::Tensor& z, const Parameter& weight, const Adapter& adapter) {
  return linear_in(z, weight) + linear_in(linear_in(z, adapter.b), adapter.a) * adapter.scale;
}

}  // namespace tessera
