// A family that does what another one does: base of those that differ from it in one thing.
#pragma once
#include "models/family.h"

namespace tessera::testing {

/// `family` must outlive it. How replicas hold frozen rows is not passed on: they hold everything in fp32.
class ForwardingFamily : public Family {
 public:
  explicit ForwardingFamily(const Family& family) : family_(family) {}
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

/// A family whose replicas hold everything in fp32: what FrozenRows::bf16 is compared with.
using HeldWide = ForwardingFamily;

}  // namespace tessera::testing
