// Adam with L2 decay (added to the gradient), as torch.optim.Adam.
#include "optim/inner_adam.h"

namespace tessera {
namespace {

struct AdamL2 final : Adam {
  AdamL2(const AdamSettings& settings, const Context&) : Adam(settings, /*decoupled=*/false) {}
};

TESSERA_REGISTER(InnerOptimizer, adam, AdamL2, AdamSettings,
                 "Adam; weight decay is added to the gradient (L2)");

}  // namespace
}  // namespace tessera
