#include "coordinator/partial_settings.h"

#include <algorithm>

#include "base/text.h"

namespace tessera {

void PartialSettings::fields(FieldVisitor& f) {
  f.field({"cut",
           "what is divided among the slots: none (every slot trains everything, DiLoCo); kinds of cut that "
           "the model declares, joined by '+' (gpt: mlp, heads, layer); tensor (whole tensors, dealt by "
           "size); globs of whole tensors, joined by ',' (\"blocks.*.mlp.up, blocks.*.mlp.down\")"},
          cut);
  f.field({"slices",
           "N, the parts that the cut is divided into: parts of a group differ by one unit at most; no more "
           "than it has units, and no more than there are slots",
           at_least(1)},
          slices);
  f.field({"assign",
           "which slot owns which slice; modulo: slot s owns slice s mod N; balanced: the same, slices sized "
           "by partial.speeds so that all slots take equally long; explicit: as partial.owners says; block: "
           "all slots train the same slice, the next one every partial.rotate_every rounds",
           one_of({"modulo", "balanced", "explicit", "block"})},
          assign);
  f.field({"replicas",
           "assign modulo: slices that each slot owns, slot s the slices s, s-1, ... mod N; with as many "
           "slots as slices each slice then has so many owners",
           at_least(1)},
          replicas);
  f.field({"owners", "assign explicit: the slots of each slice, like [\"0,2\", \"1,3\"]"}, owners);
  f.field({"speeds", "assign balanced: how fast the slots are, relative to each other; one number per slot",
           positive()},
          speeds);
  f.field({"shared",
           "globs of parameters that all slots train though the cut would divide them; auto: in a tensor "
           "cut, vectors and what is named embed* or head, otherwise nothing"},
          shared);
  f.field({"frozen", "globs of parameters that nobody trains and that are never sent"}, frozen);
  f.field({"rotate_every",
           "every so many rounds each slot passes on to the next slice (slot s owns slice s + 1); 0: never",
           at_least(0)},
          rotate_every);
  f.field(
      {"rotate_state",
       "what becomes of the inner optimizer's moments of slices that change owners; reset: they start at "
       "zero, with a step count of their own; hand_over: the last contribution before brings them, and the "
       "new owners get the mean of what the old ones brought",
       one_of({"reset", "hand_over"})},
      rotate_state);
  f.field({"owner_view",
           "what the owners of a slice go on with after a merge; reset: the merged values, as everybody else "
           "(the paper); fast: their own, while all others and evaluation see a slow copy that follows at "
           "outer.cut_lr",
           one_of({"reset", "fast"})},
          owner_view);
  f.field({"average",
           "what the summed change of a coordinate is divided by; owners: the slots that trained it (the "
           "paper); slots: all slots, for comparison",
           one_of({"owners", "slots"})},
          average);
  f.field({"inner_lr_scale", "times inner.lr is the learning rate of what is cut", positive()},
          inner_lr_scale);
}

std::vector<std::string> PartialSettings::problems() const {
  std::vector<std::string> found;
  auto say = [&](std::string sentence) { found.push_back(std::move(sentence)); };
  const std::string n = std::to_string(slices);
  if (cut == "none") {
    if (slices > 1) {
      say("partial.slices = " + n +
          " needs something to cut, but partial.cut is 'none'; set partial.cut or leave slices at 1.");
    }
    if (rotate_every > 0) {
      say("partial.rotate_every = " + std::to_string(rotate_every) +
          " has nothing to rotate, because partial.cut is 'none'; set partial.cut or rotate_every = 0.");
    }
  }
  if (owner_view == "fast" && (cut == "none" || blocks())) {
    say("partial.owner_view = \"fast\" needs a cut that is divided among the slots; partial.cut is \"" + cut +
        "\", partial.assign \"" + assign + "\".");
  }
  if (owner_view == "fast" && average == "slots") {
    say("partial.average = \"slots\" does not go with partial.owner_view = \"fast\", whose fast values are "
        "means over owners.");
  }
  if (assign == "block" && rotate_every == 0) {
    say("partial.assign = \"block\" needs partial.rotate_every of at least 1: after so many rounds all slots "
        "go on to the next slice.");
  }
  if (assign == "balanced") {
    if (speeds.empty()) {
      say("partial.assign = \"balanced\" needs partial.speeds, one number per slot; an earlier run prints "
          "them at its end.");
    }
    if (rotate_every > 0) {
      say("partial.rotate_every does not go with partial.assign = \"balanced\": slices that are sized for "
          "their owners would come to others.");
    }
  }
  if (assign == "explicit" && static_cast<std::int64_t>(owners.size()) != slices) {
    say("partial.owners names the slots of " + std::to_string(owners.size()) +
        " slices, but partial.slices = " + n + ".");
  }
  if (assign != "explicit" && !owners.empty()) {
    say("partial.owners is for partial.assign = \"explicit\"; it is \"" + assign + "\".");
  }
  if (replicas > 1 && assign != "modulo") {
    say("partial.replicas = " + std::to_string(replicas) +
        " is for partial.assign = \"modulo\"; with \"explicit\" name the slots in partial.owners.");
  }
  if (replicas > slices) {
    say("partial.replicas = " + std::to_string(replicas) + " is more than partial.slices = " + n +
        ": a slot cannot own a slice twice; use at most " + n + ".");
  }
  return found;
}

}  // namespace tessera
