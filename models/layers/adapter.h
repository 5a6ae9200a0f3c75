// Low-rank adapters (LoRA, arXiv 2106.09685): a product with W + scale B A, where W [units, width] may be
// frozen and A [rank, width] and B [units, rank] are trained. Both factors are ordinary parameters: rows of B
// are units, so they are cut and owned together with the rows of W, and slots merge A and B as they merge
// everything else.
#pragma once
#include "models/layers/sliced_linear.h"

namespace tessera {

struct Adapter {
  const Parameter& a;  ///< [rank, width]
  const Parameter& b;  ///< [units, rank]; zeros at first, so that the adapted product begins as the plain one
  double scale = 1;    ///< alpha / rank
};

/// y [..., units] = x [..., width] (W + scale B A)^T.
at::Tensor adapted_out(const at::Tensor& x, const Parameter& weight, const Adapter& adapter);

/// y [..., width] = z [..., units] (W + scale B A).
at::Tensor adapted_in(const at::Tensor& z, const Parameter& weight, const Adapter& adapter);

}  // namespace tessera
