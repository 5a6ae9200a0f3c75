#include "models/gpt_settings.h"

#include <algorithm>

namespace tessera {

void GptSettings::fields(FieldVisitor& f) {
  f.field({"width", "size of the residual stream", at_least(1)}, width);
  f.field({"layers", "number of blocks", at_least(1)}, layers);
  f.field({"heads", "query heads per block", at_least(1)}, heads);
  f.field({"kv_heads", "key/value heads per block; 0: as many as heads", at_least(0)}, kv_heads);
  f.field({"ffn",
           "hidden units of each MLP; 0: 4 x width for gelu, 8/3 x width rounded up to a multiple of 8 for "
           "swiglu (the same number of parameters)",
           at_least(0)},
          ffn);
  f.field({"vocab", "size of the vocabulary; 0: the tokenizer's", at_least(0)}, vocab);
  f.field({"context", "tokens per training sequence and the longest that can be read", at_least(1)}, context);
  f.field(
      {"positions", "how positions enter: a learned table or rotary angles", one_of({"learned", "rotary"})},
      positions);
  f.field({"activation", "of the MLP", one_of({"gelu", "swiglu"})}, activation);
  f.field({"norm", "before attention, MLP and head", one_of({"layernorm", "rmsnorm"})}, norm);
  f.field({"bias", "biases in projections and layer norms"}, bias);
  f.field(
      {"attention_mask",
       "to which positions a position attends: causal: itself and those before; none: all, as in an encoder "
       "(refused where the next token is to be predicted)",
       one_of({"causal", "none"})},
      attention_mask);
  f.field(
      {"dropout",
       "share of elements that a training step sets to zero, while the others grow by 1 / (1 - dropout): of "
       "the embedding, of attention's probabilities, and of what attention and MLP add to the residual "
       "stream. Which ones is a function of seed, slot and its step, whatever computes them",
       below_one()},
      dropout);
  f.field(
      {"block",
       "fast: hand-written forward and backward of each block where there is one (fp32 on the CPU); plain: "
       "one operator after another, the reference",
       one_of({"fast", "plain"})},
      block);
  f.field({"precision",
           "of the operands of matrix products; sums, attention's scores, gradients, moments and the "
           "weights that a slot trains are fp32 in all. With bf16 the frozen rows of matrices are held "
           "in bf16 alone: 2 + 14 f bytes a parameter instead of 4 + 12 f, where f is the trained share; "
           "it needs a processor that has such products, and the fast block. fp16, with a scaled loss, "
           "is emulated by the plain block: for study, and slower than fp32",
           one_of({"fp32", "bf16", "fp16"})},
          precision);
  f.field({"tied", "the output head is the token embedding"}, tied);
  f.field(
      {"adapter_rank",
       "rank r of low-rank adapters (LoRA): W becomes W + alpha/r B A with A [r, width], B [units, r]; 0: "
       "none. With the targets' W frozen, an MLP with r = width x ffn / (N x (width + ffn)) trains as many "
       "parameters as a slot of a cut into N slices; in general r = sum(units x width) / (N x sum(units + "
       "width)) over the targets",
       at_least(0)},
      adapter_rank);
  f.field({"adapter_alpha", "alpha of the adapters; 0: as large as the rank (W + B A)", at_least(0)},
          adapter_alpha);
  f.field({"adapter_targets", "which matrices get adapters: mlp (up, gate, down), heads (q, k, v, o)",
           one_of({"mlp", "heads", "mlp+heads"})},
          adapter_targets);
}

std::vector<std::string> GptSettings::problems() const {
  std::vector<std::string> found;
  const std::int64_t groups = kv_heads == 0 ? heads : kv_heads;
  if (heads > 0 && width % heads != 0) {
    found.push_back("model.heads = " + std::to_string(heads) +
                    " does not divide model.width = " + std::to_string(width));
  } else if (heads > 0 && positions == "rotary" && width / heads % 2 != 0) {
    found.push_back("model.positions = \"rotary\" needs an even head size, but model.width / model.heads = " +
                    std::to_string(width / heads));
  }
  if (groups > 0 && heads % groups != 0) {
    found.push_back("model.kv_heads = " + std::to_string(kv_heads) +
                    " does not divide model.heads = " + std::to_string(heads));
  }
  std::int64_t smallest = width;  // side of a matrix that gets an adapter
  if (adapter_targets != "heads" && ffn > 0) smallest = std::min(smallest, ffn);
  if (adapter_targets != "mlp" && heads > 0) smallest = std::min(smallest, width / heads * groups);
  if (adapter_rank > smallest) {
    found.push_back("model.adapter_rank = " + std::to_string(adapter_rank) + " is more than " +
                    std::to_string(smallest) +
                    ", the smaller side of a matrix that it adapts: training the matrix itself is cheaper");
  }
  if (precision == "fp16" && (block != "plain" || adapter_rank > 0)) {
    found.push_back(
        "model.precision = \"fp16\" needs model.block = \"plain\" without adapters: it is emulated there, "
        "and "
        "slower than fp32; \"bf16\" is what is fast on a processor");
  }
  if (precision == "bf16" && (block != "fast" || adapter_rank > 0)) {
    found.push_back("model.precision = \"bf16\" needs model.block = \"fast\" without adapters");
  } else if (const std::string why = why_not(compute_precision()); !why.empty()) {
    found.push_back("model.precision = \"bf16\": " + why + "; \"fp32\" runs everywhere");
  }
  return found;
}

}  // namespace tessera
