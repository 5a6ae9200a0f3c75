// DES-LOC (arXiv 2505.22549): parameters and the inner optimizer's moments are averaged, each with its own
// period, since a moment changes the more slowly the larger its beta is: parameters with every merge, first
// moments with every `first_every`-th, second moments with every `second_every`-th. With both at 1 it is
// Local Adam. The moments of a slot's own rows travel in fp32 beside its contribution, and the version that
// they are due with brings the mean over their owners.
#include "optim/outer_parts.h"

namespace tessera {
namespace {

struct DesLocSettings : Settings {
  std::int64_t first_every = 3, second_every = 6;
  void fields(FieldVisitor& f) override {
    f.field({"first_every", "merges from one average of the first moments to the next; 0: never",
             between(0, 1 << 30)},
            first_every);
    f.field({"second_every", "the same of the second moments", between(0, 1 << 30)}, second_every);
  }
};

class DesLoc final : public LikeDiLoCo {
 public:
  DesLoc(const DesLocSettings& settings, const Context& context)
      : LikeDiLoCo(with_plain_step(context)), settings_(settings), asked_(context) {}

  std::vector<std::string> problems() const override {
    Refusals refusals("des_loc");
    refusals.refuse_outer_step(asked_, "it takes the mean as it is", /*rate=*/true);
    refusals.refuse(asked_.rotates, "partial.rotate_every",
                    "the mean of moments is of those who own a row, at the time that it is taken");
    refusals.refuse(asked_.keeps_fast, "partial.owner_view = \"fast\"",
                    "owners that go on from their own values go on with their own moments");
    refusals.refuse(asked_.gradient_step != nullptr && asked_.gradient_step->state_names().empty(),
                    "inner.name",
                    "the optimizer keeps no moments, so that there are only parameters to average");
    return refusals.found();
  }
  std::int64_t merges_per_moment(const std::string& moment) const override {
    return moment.ends_with("_sq") ? settings_.second_every : settings_.first_every;
  }

 private:
  DesLocSettings settings_;
  Context asked_;
};

}  // namespace

TESSERA_REGISTER(OuterMethod, des_loc, DesLoc, DesLocSettings,
                 "parameters and moments are averaged, each with its own period (arXiv 2505.22549)");

}  // namespace tessera
