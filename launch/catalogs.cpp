#include "launch/catalogs.h"

#include "comm/codec.h"
#include "data/source.h"
#include "data/tokenizer.h"
#include "models/family.h"
#include "optim/inner.h"
#include "optim/objective.h"
#include "optim/outer.h"
#include "optim/schedule.h"

namespace tessera {

Catalogs builtin_catalogs() {
  return {.families = &Registry<Family>::builtin(),
          .objectives = &Registry<Objective>::builtin(),
          .methods = &Registry<OuterMethod>::builtin(),
          .inner = &Registry<InnerOptimizer>::builtin(),
          .schedules = &Registry<Schedule>::builtin(),
          .sources = &Registry<DataSource>::builtin(),
          .tokenizers = &Registry<Tokenizer>::builtin(),
          .codecs = &Registry<Codec>::builtin()};
}

}  // namespace tessera
