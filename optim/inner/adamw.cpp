// Adam with decoupled decay, as torch.optim.AdamW.
#include "optim/inner_adam.h"

namespace tessera {
namespace {

struct AdamWSettings final : AdamSettings {
  AdamWSettings() { weight_decay = 0.1; }
};

struct AdamW final : Adam {
  AdamW(const AdamWSettings& settings, const Context&) : Adam(settings, /*decoupled=*/true) {}
};

TESSERA_REGISTER(InnerOptimizer, adamw, AdamW, AdamWSettings, "Adam with decoupled weight decay (AdamW)");

}  // namespace
}  // namespace tessera
