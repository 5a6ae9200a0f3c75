// A family as it is but for how its replicas hold frozen rows: what FrozenRows::bf16 is compared with.
#pragma once
#include "models/family.h"

namespace tessera::testing {

/// A family whose replicas hold everything in fp32.
class HeldWide final : public Family {
 public:
  explicit HeldWide(const Family& family) : family_(family) {}
  std::vector<ParamSpec> specs() const override { return family_.specs(); }
  std::vector<CutGroup> cuts() const override { return family_.cuts(); }
  CostModel cost() const override { return family_.cost(); }
  void initialize(ParamStore& params, std::uint64_t seed) const override { family_.initialize(params, seed); }
  NamedTensors forward(const ParamStore& params, const NamedTensors& batch) const override {
    return family_.forward(params, batch);
  }
  NamedTensors example_batch(std::uint64_t seed) const override { return family_.example_batch(seed); }

 private:
  const Family& family_;
};

}  // namespace tessera::testing
