// Local SGD, in federated learning FedAvg (arXiv 1602.05629): H local steps, then everybody goes on from the
// plain mean. The mean weighs slots equally, since all take equally many samples.
#include "optim/outer_parts.h"

namespace tessera {
namespace {

class LocalSgd final : public LikeDiLoCo {
 public:
  LocalSgd(const NoSettings&, const Context& context)
      : LikeDiLoCo(with_plain_step(context)), asked_(context) {}

  std::vector<std::string> problems() const override {
    Refusals refusals("local_sgd");
    refusals.refuse_outer_step(asked_, "it takes the mean as it is", /*rate=*/true);
    return refusals.found();
  }

 private:
  Context asked_;
};

}  // namespace

TESSERA_REGISTER(OuterMethod, local_sgd, LocalSgd, NoSettings,
                 "local steps on every slot, then the plain mean: FedAvg (arXiv 1602.05629)");

}  // namespace tessera
