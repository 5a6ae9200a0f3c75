// SparseLoCo (arXiv 2508.15706): with beta, k of every chunk, and a few bits a value, a slot keeps what it
// has not sent yet and sends the largest of it,
//   e = beta e + Delta;  sent = Q(topk(e));  e = e - sent;  theta = theta - alpha mean(sent).
// There is no outer momentum: e does what it would do.
//
// e is the error feedback of the slot's wire (comm/changes.h) and Q(topk(.)) the codec "topk", so both halves
// here are DiLoCo with a plain step; the file says how contributions are encoded, since without that there is
// no method. Chunks are consecutive values of a piece.
#include "optim/outer_parts.h"

namespace tessera {
namespace {

struct SparseLocoSettings : Settings {
  double feedback = 0.95, density = 64.0 / 4096;
  std::int64_t chunk = 4096, value_bits = 2;
  void fields(FieldVisitor& f) override {
    f.field({"feedback", "beta: share of what a slot has not sent yet that it adds to its next change",
             fraction()},
            feedback);
    f.field({"density",
             "share of every chunk that is sent, the largest magnitudes",
             {.min = 0, .max = 1, .min_is_open = true}},
            density);
    f.field({"chunk", "consecutive values of which that share is taken; a position costs its bits",
             between(2, 65536)},
            chunk);
    f.field({"value_bits", "2: values travel as one of four means; 32: as they are", between(2, 32)},
            value_bits);
  }
  std::vector<std::string> problems() const override {
    if (value_bits == 2 || value_bits == 32) return {};
    return {"outer.value_bits = " + std::to_string(value_bits) + " is neither 2 nor 32"};
  }
};

OuterMethod::Context plain(const OuterMethod::Context& asked) {
  const double alpha = std::isnan(asked.lr) ? 1 : asked.lr;
  const bool of_its_own = asked.cut && !std::isnan(asked.cut->lr);
  return with_plain_step(asked, alpha, of_its_own ? asked.cut->lr : alpha);
}

class SparseLoco final : public LikeDiLoCo {
 public:
  SparseLoco(const SparseLocoSettings& settings, const Context& context)
      : LikeDiLoCo(plain(context)), settings_(settings), asked_(context) {}

  std::vector<std::string> problems() const override {
    Refusals refusals("sparseloco");
    refusals.refuse_outer_step(asked_, "it takes a plain step along what was sent", /*rate=*/false);
    refusals.refuse(asked_.keeps_fast, "partial.owner_view = \"fast\"",
                    "most of what owners would keep never arrives");
    return refusals.found();
  }
  std::optional<Encoding> encoding() const override {
    return Encoding{.codec = "topk",
                    .settings = {{"density", settings_.density},
                                 {"chunk", static_cast<double>(settings_.chunk)},
                                 {"value_bits", static_cast<double>(settings_.value_bits)}},
                    .feedback = settings_.feedback};
  }

 private:
  SparseLocoSettings settings_;
  Context asked_;
};

}  // namespace

TESSERA_REGISTER(
    OuterMethod, sparseloco, SparseLoco, SparseLocoSettings,
    "DiLoCo of the largest changes alone, in 2 bits, the rest kept for later (arXiv 2508.15706)");

}  // namespace tessera
