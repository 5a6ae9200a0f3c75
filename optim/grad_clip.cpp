#include "optim/grad_clip.h"

#include <ATen/TensorOperators.h>

#include <array>
#include <cmath>

#include "optim/inner_state.h"

namespace tessera {
namespace {

template <class T>
double sum_of_squares(std::span<const T> values) {
  std::array<double, 8>
      sums{};  // independent chains, so that the additions overlap; the order is fixed all the same
  const std::size_t whole = values.size() / sums.size() * sums.size();
  for (std::size_t i = 0; i < whole; i += sums.size()) {
    for (std::size_t k = 0; k < sums.size(); ++k) {
      const double x = values[i + k];
      sums[k] += x * x;
    }
  }
  double total = 0;
  for (double sum : sums) total += sum;
  for (std::size_t i = whole; i < values.size(); ++i) total += static_cast<double>(values[i]) * values[i];
  return total;
}

double sum_of_squares(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.detach().contiguous();
  if (!dense.is_cpu()) return dense.to(at::kDouble).square().sum().item<double>();
  return dense.scalar_type() == at::kFloat ? sum_of_squares(elements<const float>(dense))
                                           : sum_of_squares(elements<const double>(dense));
}

}  // namespace

double clip_gradients(const std::vector<Piece>& pieces, const ClipSettings& settings,
                      std::int64_t all_parameters) {
  double squares = 0;
  std::int64_t owned = 0;
  for (const Piece& piece : pieces) {
    owned += piece.value.numel();
    if (piece.gradient.defined()) squares += sum_of_squares(piece.gradient);
  }
  double norm = std::sqrt(squares);
  if (settings.mode == ClipSettings::Mode::scaled && owned > 0) {
    norm *= std::sqrt(static_cast<double>(all_parameters) / static_cast<double>(owned));
  }
  if (settings.mode == ClipSettings::Mode::off || !std::isfinite(norm)) return norm;
  const double factor = settings.max_norm / (norm + 1e-6);
  if (factor >= 1) return norm;
  for (const Piece& piece : pieces) {
    if (piece.gradient.defined()) piece.gradient.detach().mul_(factor);
  }
  return norm;
}

}  // namespace tessera
