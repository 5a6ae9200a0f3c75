// Dynamic loss scaling for gradients in fp16, whose smallest number is 6e-8: the loss is multiplied before
// the backward pass and gradients divided after it, by the largest power of two at which nothing overflows
// (arXiv 1806.00187, section 3.1; fairseq's DynamicLossScaler). Torch-free.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/fields.h"

namespace tessera {

struct LossScaleSettings : Settings {
  double initial = 32768, least = 1.0 / 8192;
  std::int64_t growth = 2000;
  void fields(FieldVisitor& f) override;
  std::vector<std::string> problems() const override;
};

/// The scale of one slot. A function of the steps before, so it is part of the slot's state.
class LossScale {
 public:
  explicit LossScale(const LossScaleSettings& settings = {});

  double value() const;
  /// After a step whose gradients were finite: once every `growth` of them in a row the scale doubles.
  void good_step();
  /// After a step whose gradients were not, which is left out: the scale halves. False: it was the least
  /// that the settings allow, so the overflow has another cause.
  bool overflow();
  /// Steps left out since the beginning; the optimizer does not count them.
  std::int64_t skipped() const { return skipped_; }

  /// What is saved: exponent of the scale, good steps in a row, steps left out.
  std::vector<std::int64_t> state() const { return {exponent_, good_, skipped_}; }
  /// False: not a state of this class.
  bool load(const std::vector<std::int64_t>& state);

 private:
  std::int64_t growth_, exponent_, least_, good_ = 0, skipped_ = 0;
};

}  // namespace tessera
