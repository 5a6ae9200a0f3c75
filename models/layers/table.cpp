#include "models/layers/table.h"

#include <ATen/ops/embedding.h>

namespace tessera {
namespace {

bool is_half(const Parameter& table) {
  return table.split() && table.frozen();
}

}  // namespace

at::Tensor look_up(const Parameter& table, const at::Tensor& indices) {
  if (is_half(table)) return at::embedding(table.halves[0].value, indices).to(at::kFloat);
  return at::embedding(table.differentiable(), indices);
}

at::Tensor first_rows(const Parameter& table, std::int64_t count) {
  if (is_half(table)) return table.halves[0].value.narrow(0, 0, count).to(at::kFloat);
  return table.differentiable().narrow(0, 0, count);
}

}  // namespace tessera
