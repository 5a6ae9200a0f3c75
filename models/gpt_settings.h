// What a recipe says of the family gpt (models/families/gpt.cpp): the settings of section [model].
#pragma once
#include <string>
#include <vector>

#include "base/fields.h"
#include "models/layers/fast_products.h"

namespace tessera {

struct GptSettings : Settings {
  std::int64_t width = 128, layers = 4, heads = 4, kv_heads = 0, ffn = 0, vocab = 0, context = 256;
  std::string positions = "learned", activation = "gelu", norm = "layernorm", block = "fast",
              precision = "fp32";
  std::string attention_mask = "causal";
  double dropout = 0;
  bool bias = false, tied = true;
  std::int64_t adapter_rank = 0;
  double adapter_alpha = 0;
  std::string adapter_targets = "mlp";

  void fields(FieldVisitor& f) override;
  std::vector<std::string> problems() const override;
  Precision compute_precision() const { return precision == "bf16" ? Precision::bf16 : Precision::fp32; }
};

}  // namespace tessera
