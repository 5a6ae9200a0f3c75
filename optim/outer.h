// Low-communication methods ("outer" optimizers), each whole in one file of optim/outer/: the local half says
// when a slot pushes and adopts, the global half how a merge is made. Torch-free: everything is spans of
// floats, sums are fp64 in slot order, so that production, simulator and sanitizers run the same code.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/params.h"
#include "base/registry.h"
#include "base/tensor.h"

namespace tessera {

/// An elementwise outer update rule on `delta` = theta_start - mean(theta_end). State: one fp32 tensor per
/// name in state_names(), of the parameter's shape, zero at the start. The rate comes with every call, since
/// it may follow from what the merge shows.
class OuterRule {
 public:
  struct Context {};
  static constexpr const char* kind = "outer rule";
  virtual ~OuterRule() = default;
  virtual std::vector<std::string> state_names() const = 0;
  /// Updates theta and the state in place for one range. fp64 inside, one cast to fp32 on storing. `state[i]`
  /// belongs to state_names()[i].
  virtual void apply(double lr, std::span<float> theta, std::span<const double> delta,
                     std::span<const std::span<float>> state) const = 0;
};
/// What rule adam has besides momentum.
struct OuterAdam {
  double beta2 = 0.99, epsilon = 1e-3;
};
/// Rules "sgd" (theta -= lr delta; momentum is ignored), "nesterov" (momentum as torch.optim.SGD: b = mu b
/// + delta; theta -= lr (delta + mu b); without momentum it is sgd and keeps no state) and "adam" (FedAdam,
/// arXiv 2003.00295, algorithm 2: m = mu m + (1 - mu) delta; v = beta2 v + (1 - beta2) delta^2; theta -= lr m
/// / (sqrt(v) + epsilon), without bias correction).
std::unique_ptr<OuterRule> make_outer_rule(const std::string& rule, double momentum, OuterAdam adam = {});
std::vector<std::string> outer_rule_names();

/// What the tensors of a contribution mean.
enum class Payload : std::uint8_t {
  theta_end,  ///< the slot's parameters after its steps: the coordinator forms the delta in fp64
  gradient,   ///< the mean gradient of one step
  delta,      ///< what the slot says has changed, theta_start - theta_end of its own reckoning
};

/// What a slot must do before (adopt) and after (push) an inner step; steps count from 0 over the whole run.
struct Due {
  std::vector<std::int32_t> adopt;  ///< fragments whose next version must be in place before this step
  std::vector<std::int32_t> push;   ///< fragments to contribute after this step
};

/// Sums over coordinates of a merged delta d and the momentum b that lies beside it.
struct DeltaProducts {
  double squares = 0;           ///< d d
  double with_momentum = 0;     ///< d b
  double momentum_squares = 0;  ///< b b
  DeltaProducts& operator+=(const DeltaProducts& more) {
    squares += more.squares;
    with_momentum += more.with_momentum;
    momentum_squares += more.momentum_squares;
    return *this;
  }
};
/// The same bits on every processor. `momentum` may be empty: zeros.
DeltaProducts products_of(std::span<const double> delta, std::span<const float> momentum);

/// A merged delta that lies nowhere as a whole: made of what was brought, a piece at a time, when a rule
/// applies it.
class DeltaMaker {
 public:
  /// Elements from `begin` on, counted from the update's first; each once.
  using Use = std::function<void(std::size_t begin, std::span<const double> delta)>;
  virtual ~DeltaMaker() = default;
  virtual std::size_t blocks() const = 0;
  /// Calls use() for the elements of a block. From any thread; only use() of the same elements may change
  /// what the delta is counted from.
  virtual void make(std::size_t block, const Use& use) const = 0;
  /// Update::products and squares, once all blocks have been made: of the state as it was before use().
  virtual DeltaProducts products() const = 0;
  virtual double squares() const = 0;
};

/// The merged delta (or gradient) of rows `rows` of one parameter, and what it is applied to. Only rows with
/// at least one contribution appear, so what nobody trained keeps parameter and state.
struct Update {
  const ParamSpec* spec = nullptr;
  Rows rows;
  std::span<float> theta;
  std::span<const double> delta;        ///< empty where there is a maker
  std::vector<std::span<float>> state;  ///< one per state_names(), of the same rows; empty: keeps none here
  std::int32_t owners = 1;              ///< m: contributions that the delta is the mean of
  bool cut = false;    ///< the parameter is divided among the slots, not trained by all of them
  double squares = 0;  ///< sum over the contributions of the squared norm of their deltas
  int threads = 1;     ///< that may share the work on it; changes no bit
  /// Of delta and state[0], where they were formed with the delta; none: the maker has them in the end, or
  /// whoever needs them forms them.
  std::optional<DeltaProducts> products{};
  std::shared_ptr<const DeltaMaker> maker{};  ///< only for methods that do without stored deltas
};
/// Of delta and state[0], as far as they are known: see Update::products. With a maker alone they are whole
/// once it has made all blocks.
DeltaProducts products_of(const Update& update);
/// An outer step of one update.
struct RuleStep {
  const OuterRule* rule;
  double lr;
};
/// rule.apply() on all of every update, the step that `step_of` says.
void apply_rules(std::span<const Update> updates, const std::function<RuleStep(const Update&)>& step_of);

/// Outer momentum begins anew with every `every`-th merge after the first (0: never): zeroes the state before
/// `version` is made. Returns whether it did.
bool restart_state(std::int64_t every, std::int64_t version, std::span<const Update> updates);
/// theta -= amount theta, where weight decay applies to the parameter.
void decay_weights(double amount, const Update& update);

/// A piece that a slot trains, when its contribution is made. What the method does with it is its local half.
struct OwnRows {
  std::span<float> value;               ///< in: what the slot has; out: what it goes on with
  std::span<float> brought;             ///< in: the same; out: the contribution
  std::span<const float> committed;     ///< as in the version that the slot adopted last
  std::vector<std::span<float>> state;  ///< one per own_state_names()
  bool first = false;                   ///< the slot's first contribution: the state is all zero
  bool cut = false;
  std::int32_t owners = 1;  ///< slots that train it
};

/// What a merge knows of a contribution besides its tensors.
struct Brought {
  std::int64_t staleness = 0;  ///< versions made since the one that its change is counted from
  std::int64_t steps = 0;      ///< inner steps since the slot's contribution before
  double units = 0;            ///< units of data in them
};
/// What a contribution counts: its change is multiplied by `scale`, and the contributions to a merge are
/// averaged by `weight`.
struct Influence {
  double weight = 1, scale = 1;
};
/// How the changes d of several contributions, of weights w, become one, by tensor. Where a tensor is cut,
/// rows with the same contributions are a tensor.
enum class Blend : std::uint8_t {
  mean,    ///< sum(w d) / sum(w)
  radial,  ///< as long as the mean of |d|, in the direction of the mean of d / |d|
};
/// How long a merge in mode drop that has its quorum waits for more (method decoupled): as long as the slots
/// do not notice, share * (steps * step time - what the quorum took - what a merge takes), from 0 to `cap`.
struct GraceWindow {
  double share = 1;
  double cap = 0;          ///< seconds
  std::int64_t steps = 0;  ///< that slots work on before they adopt
};

/// Inner steps of a slot between two contributions, where they follow its speed: between `least` and `all`.
struct DynamicSteps {
  std::int64_t all = 1, least = 1;
};

/// How large an outer step is. NaN as lr: as the merges themselves suggest (outer_gain.h).
struct OuterStep {
  double lr = 0.7;
  double momentum = 0.9;
};

/// What a merge did, for the log and metrics. Zeros where a method has no such thing.
struct OuterReport {
  double lr = 0, cut_lr = 0;  ///< rates used for coordinates shared by all slots, and for those that are cut
  double agreement = 0;       ///< mean cosine between the deltas of two slots, over shared coordinates
  double persistence = 0;     ///< cosine between this delta and the outer momentum, over shared coordinates
  auto operator<=>(const OuterReport&) const = default;
};

/// Steps an inner optimizer on merged gradients, for methods whose coordinator steps (data_parallel).
/// Implemented over LibTorch in optim/gradient_step.cpp; methods see only this.
class GradientStep {
 public:
  virtual ~GradientStep() = default;
  virtual std::vector<std::string> state_names() const = 0;
  virtual void apply(std::int64_t step, std::span<const Update> updates) const = 0;  ///< step counts from 1
};

/// A codec by name, with settings that are numbers, for methods that say themselves how they encode.
struct Encoding {
  std::string codec;
  std::map<std::string, double> settings;
  double feedback = 0;  ///< Wire::feedback
};
/// Coordinates of a range of rows, counted from its first one, ascending.
using Positions = std::vector<std::int64_t>;

/// A method. Fragments are lists of pieces (piece_name): mostly of bare names, which are whole parameters.
/// Every row that travels is in exactly one.
class OuterMethod {
 public:
  struct Context {
    std::vector<ParamSpec> specs;
    std::int64_t steps = 1;  ///< H
    std::string rule = "nesterov";
    double lr = 0.7, momentum = 0.9;  ///< of coordinates that all slots share
    std::optional<OuterStep> cut{};   ///< of coordinates that are cut; none: like the shared ones
    std::int32_t slots = 1, slices = 1;
    std::vector<RowSet> slice_rows{};  ///< rows of each slice, in all parameters that are cut; empty: none is
    std::uint64_t seed = 0;            ///< of what the method draws
    OuterAdam adam{};
    double weight_decay = 0;                              ///< of the outer step, times its rate
    std::int64_t restart_every = 0;                       ///< restart_state()
    bool rotates = false;                                 ///< slices change their owners on the way
    bool keeps_fast = false;                              ///< partial.owner_view = "fast"
    bool drops = false;                                   ///< mode = "drop", where merges close without late
    std::int32_t quorum = 0;                              ///< ones once they have so many; 0: not said
    std::shared_ptr<const GradientStep> gradient_step{};  ///< for methods whose coordinator steps; else null
  };
  static constexpr const char* kind = "method";
  virtual ~OuterMethod() = default;

  /// What the recipe asks for that the method cannot do, in sentences that name the setting and the reason.
  /// Asked before anything else; construction itself must not fail on it.
  virtual std::vector<std::string> problems() const { return {}; }
  virtual std::vector<std::vector<std::string>> fragments() const = 0;
  /// The local half: the duties around inner step `step`.
  virtual Due due(std::int64_t step) const = 0;
  /// How many inner steps lie between version v and v+1 of a fragment (work that a contribution carries).
  virtual std::int64_t steps_per_merge() const = 0;
  /// The step that a slot without history begins with when these versions of the fragments are the newest:
  /// the first one at which slots have adopted all of them.
  virtual std::int64_t step_at(std::span<const std::int64_t> versions) const {
    return versions[0] * steps_per_merge();
  }
  /// The slot applies gradients itself (false: it brings them, and the coordinator steps).
  virtual bool steps_locally() const { return true; }
  virtual Payload payload() const { return Payload::theta_end; }
  /// alpha: a slot that adopts a version goes on with alpha own + (1 - alpha) committed, on its own rows.
  virtual double own_share() const { return 0; }
  /// Tensors that a slot keeps per own piece, of the piece's shape, zero at the start; saved with its state.
  virtual std::vector<std::string> own_state_names() const { return {}; }
  /// Whether push() is to be called for every piece of a contribution.
  virtual bool changes_pushes() const { return false; }
  virtual void push(const OwnRows&) const {}
  /// How contributions are encoded, where that is part of the method; none: as the recipe says (codec.up).
  virtual std::optional<Encoding> encoding() const { return std::nullopt; }
  /// Share of the coordinates that travel with a merge, on average, up and down. Below 1, coordinates() says
  /// which: values of the others stay what they are, on both sides.
  virtual double share() const { return 1; }
  /// The coordinates of these rows that the merge which makes `version` is about, alike for all owners; none:
  /// all of them.
  virtual std::optional<Positions> coordinates(std::int64_t /*version*/, const ParamSpec&, Rows) const {
    return std::nullopt;
  }
  /// A moment of the inner optimizer ("exp_avg") is averaged over its owners with every so many merges, and
  /// they go on with the mean; 0: never, it stays with the slot.
  virtual std::int64_t merges_per_moment(const std::string& /*moment*/) const { return 0; }
  /// Contributions that close a merge: 0 = one of every slot, n = the first n to arrive.
  virtual std::int32_t arrivals_per_merge() const { return 0; }
  /// Slots keep clocks of their own: what comes after its merge goes into the next one, and is a change
  /// (Payload::delta) from the version that the slot started from.
  virtual bool takes_late() const { return arrivals_per_merge() > 0; }
  /// Mode drop: how long a merge waits after its quorum, where sync.deadline does not say it.
  virtual std::optional<GraceWindow> grace() const { return std::nullopt; }
  /// Steps per contribution by speed, as many as `all` for the quickest slot. Slots begin their rounds at
  /// multiples of that all the same, and leave out the rest.
  virtual std::optional<DynamicSteps> dynamic_steps() const { return std::nullopt; }
  /// Whether influence() and blend() say how contributions become one change; else their plain mean.
  virtual bool weighs() const { return false; }
  virtual Influence influence(const Brought&) const { return {}; }
  virtual Blend blend(const ParamSpec&) const { return Blend::mean; }

  /// The global half: state tensors per parameter ("momentum"), zero at the start.
  virtual std::vector<std::string> state_names() const = 0;
  /// The state tensors of a parameter that is cut, where they are fewer.
  virtual std::vector<std::string> cut_state_names() const { return state_names(); }
  /// Whether apply() reads Update::delta itself. If not, it comes with a maker, for apply_rules() and
  /// signals_of(): 8 bytes a parameter less, and fewer passes over memory.
  virtual bool needs_deltas() const { return true; }
  /// Whether apply() needs products and squares before it applies anything. If neither, all that was brought
  /// is read once only.
  virtual bool needs_sums() const { return true; }
  /// Makes `version` (from 1) of one fragment: updates theta and state in place.
  virtual OuterReport apply(std::int64_t version, std::span<const Update> updates) const = 0;
};

/// A method's fragments as rows of these parameters.
std::vector<RowSet> fragment_rows(const OuterMethod& method, const std::vector<ParamSpec>& specs);

}  // namespace tessera
