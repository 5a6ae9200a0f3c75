// What tests of the hand-written block share.
#pragma once
#include <cmath>

#include "base/random.h"
#include "tests/models/fixtures.h"

namespace tessera::testing {

/// Away from the initial values, where gains and biases would hide behind ones and zeros.
inline void perturb(Trainee& model) {
  at::manual_seed(3);
  for (auto& [name, parameter] : model.params.all()) {
    const double size =
        parameter.full.dim() == 2 ? 1 / std::sqrt(static_cast<double>(parameter.full.size(1))) : 0.15;
    parameter.full.add_(at::randn(parameter.full.sizes()).mul_(size).to(parameter.full.scalar_type()));
  }
}

/// Any ranges of any parameters: nothing, everything, or some runs of rows, of rows / `shorter` at most and
/// as far apart.
inline RowSet random_rows(const Family& family, std::uint64_t seed, std::int64_t shorter = 1) {
  KeyedRandom random(key_of({seed}));
  RowSet owned;
  for (const ParamSpec& spec : family.specs()) {
    const std::int64_t bound = shorter == 1 ? spec.rows() : spec.rows() / shorter + 1;
    const std::uint64_t way = random.below(4);
    if (way == 1) add_rows(owned, spec.name, {0, spec.rows()});
    for (std::int64_t at = 0; way >= 2 && at < spec.rows();) {
      const auto step = [&] {
        return static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(bound)));
      };
      const std::int64_t begin = at + step(), end = std::min(spec.rows(), begin + 1 + step());
      if (begin < end) add_rows(owned, spec.name, {begin, end});
      at = end + 1;
    }
  }
  return owned;
}

/// bf16 has 8 bits of mantissa: operands are off by up to 2^-9, and a step has a dozen products one after
/// another. Both models train everything.
inline void expect_within_bf16(Trainee& half, Trainee& full, const NamedTensors& batch) {
  for (Trainee* model : {&half, &full}) model->params.set_all_trainable();
  const double loss = full.backward(batch);
  EXPECT_NEAR(half.backward(batch), loss, 5e-3 * loss);
  double apart = 0, size = 0;
  for (const auto& [name, parameter] : half.params.all()) {
    const at::Tensor &a = parameter.leaves[0].value.grad(), &b = full.params[name].leaves[0].value.grad();
    apart += (a - b).square().sum().item<double>();
    size += b.square().sum().item<double>();
  }
  EXPECT_LT(std::sqrt(apart / size), 2e-2) << "relative distance of the whole gradient";
  EXPECT_GT(std::sqrt(apart / size), 1e-4) << "nothing was rounded";
}

}  // namespace tessera::testing
