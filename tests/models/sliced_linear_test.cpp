// The sliced products against autograd, finite differences (first and second order), counted work and kept
// memory.
#include "models/layers/sliced_linear.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <map>

#include "tests/models/count_products.h"

namespace tessera {
namespace {

using at::Tensor;
using torch::autograd::grad;
using Product = Tensor (*)(const Tensor&, const Parameter&);

/// linear_in where nobody else keeps its input.
Tensor alone_in(const Tensor& z, const Parameter& weight) {
  return linear_in(z, weight);
}

constexpr std::int64_t units = 7, width = 5;
const std::vector<std::vector<Rows>> owned_sets = {{}, {{0, 7}}, {{2, 5}}, {{0, 1}, {2, 4}, {6, 7}}};

Parameter& cut(ParamStore& store, const std::string& name, const std::vector<Rows>& owned) {
  RowSet rows;
  if (!owned.empty()) rows[name] = owned;
  store.set_trainable(rows);
  return store[name];
}

ParamStore random_store(std::initializer_list<std::string> names) {
  std::vector<ParamSpec> specs;
  for (const std::string& name : names) specs.push_back({.name = name, .shape = {units, width}});
  ParamStore store(specs, at::kDouble);
  for (auto& [name, parameter] : store.all()) parameter.full.normal_();
  return store;
}

TEST(SlicedLinear, ForwardAndOwnedGradientsEqualAutograd) {
  at::manual_seed(1);
  for (const std::vector<Rows>& owned : owned_sets) {
    for (Product product : {linear_out, alone_in}) {
      const bool out = product == linear_out;
      ParamStore store = random_store({"w"});
      Parameter& parameter = cut(store, "w", owned);
      const Tensor x = at::randn({2, 3, out ? width : units}, at::kDouble).requires_grad_(true);
      const Tensor whole = parameter.full.clone().requires_grad_(true);
      const Tensor expected = at::matmul(x, out ? whole.t() : whole), y = product(x, parameter);
      EXPECT_TRUE(at::allclose(y, expected, 1e-13, 1e-13));
      const Tensor dy = at::randn_like(y);
      const auto want = grad({expected}, {x, whole}, {dy});
      y.backward(dy);
      EXPECT_TRUE(at::allclose(x.grad(), want[0], 1e-12, 1e-12));
      EXPECT_FALSE(parameter.full.grad().defined());
      ASSERT_EQ(parameter.leaves.size(), owned.size());
      for (const Leaf& leaf : parameter.leaves) {
        const Tensor rows = want[1].narrow(0, leaf.rows.begin, leaf.rows.count());
        EXPECT_TRUE(at::allclose(leaf.value.grad(), rows, 1e-12, 1e-12));
      }
    }
  }
}

/// Compares the gradient of a scalar function with central differences, element by element.
void check_gradient(const std::function<Tensor()>& function, const std::vector<Tensor>& variables) {
  const auto analytic =
      grad({function()}, variables, {}, /*retain_graph=*/std::nullopt, /*create_graph=*/false,
           /*allow_unused=*/true);
  constexpr double h = 1e-5;
  for (std::size_t v = 0; v < variables.size(); ++v) {
    double* values = variables[v].mutable_data_ptr<double>();
    for (std::int64_t i = 0; i < variables[v].numel(); ++i) {
      const double kept = values[i];
      values[i] = kept + h;
      const double above = function().item<double>();
      values[i] = kept - h;
      const double below = function().item<double>();
      values[i] = kept;
      const double slope = analytic[v].defined() ? analytic[v].flatten()[i].item<double>() : 0;
      ASSERT_NEAR(slope, (above - below) / (2 * h), 1e-6 * std::max(1.0, std::abs(slope)))
          << "variable " << v << ", " << i;
    }
  }
}

TEST(SlicedLinear, GradientsOfFirstAndSecondOrderEqualFiniteDifferences) {
  at::manual_seed(2);
  for (const std::vector<Rows>& owned : owned_sets) {
    ParamStore store = random_store({"up", "down"});
    RowSet rows;
    if (!owned.empty()) rows = {{"up", owned}, {"down", owned}};
    store.set_trainable(rows);
    const Tensor x = at::randn({3, width}, at::kDouble).requires_grad_(true);
    std::vector<Tensor> variables{x};
    for (const auto& [name, parameter] : store.all()) {
      for (const Leaf& leaf : parameter.leaves) variables.push_back(leaf.value);
    }
    const Tensor mix = at::randn({3, width}, at::kDouble);
    const auto loss = [&] {
      const Tensor y = linear_in(linear_out(x, store["up"]).tanh(), store["down"]);
      return (y.sin() * mix).sum();
    };
    check_gradient(loss, variables);

    std::vector<Tensor> directions;
    for (const Tensor& variable : variables) directions.push_back(at::randn_like(variable.detach()));
    const auto slope = [&] {
      const auto gradients = grad({loss()}, variables, {}, /*retain_graph=*/true, /*create_graph=*/true);
      Tensor sum = at::zeros({}, at::kDouble);
      for (std::size_t i = 0; i < gradients.size(); ++i) sum = sum + (gradients[i] * directions[i]).sum();
      return sum;
    };
    check_gradient(slope, variables);
  }
}

TEST(SlicedLinear, BackwardDoesTheWorkOfTheOwnedRowsOnly) {
  constexpr std::int64_t batch = 6;
  for (const std::vector<Rows>& owned : owned_sets) {
    for (Product product : {linear_out, alone_in}) {
      for (bool input_needs_gradient : {true, false}) {
        ParamStore store = random_store({"w"});
        const Parameter& parameter = cut(store, "w", owned);
        const Tensor x = at::randn({batch, product == linear_out ? width : units}, at::kDouble);
        const Tensor y = product(x.requires_grad_(input_needs_gradient), parameter);
        std::int64_t rows = input_needs_gradient ? units : 0;
        for (const Rows& range : owned) rows += range.count();
        const ProductCount count;
        if (y.requires_grad()) y.sum().backward();
        EXPECT_EQ(count.multiplications(), batch * width * rows);
      }
    }
  }
}

/// True if the graph of product(x * 2) keeps x * 2 itself alive.
bool keeps_input(Product product, const std::vector<Rows>& owned) {
  ParamStore store = random_store({"w"});
  const Parameter& parameter = cut(store, "w", owned);
  const Tensor x = at::randn({3, product == linear_out ? width : units}, at::kDouble).requires_grad_(true);
  Tensor input = x * 2;
  const auto storage = input.storage().getWeakStorageImpl();
  const Tensor y = product(input, parameter);
  input.reset();
  return storage.use_count() > 0;
}

TEST(SlicedLinear, InputThatOnlyFrozenGradientsWouldNeedIsNotKept) {
  EXPECT_FALSE(keeps_input(linear_out, {}));
  EXPECT_TRUE(keeps_input(linear_out, {{2, 5}}));
  EXPECT_FALSE(keeps_input(alone_in, {}));
  EXPECT_FALSE(keeps_input(alone_in, {{2, 5}})) << "the owned columns are enough";
  EXPECT_TRUE(keeps_input(alone_in, {{0, 7}}));
}

TEST(ParamStore, LeavesShareMemoryAndDifferentiableSendsGradientsToThem) {
  ParamStore store = random_store({"w"});
  const Parameter& parameter = cut(store, "w", {{1, 3}, {4, 7}});
  {
    at::NoGradGuard guard;
    parameter.leaves[1].value.fill_(9);
  }
  EXPECT_EQ(parameter.full[4][0].item<double>(), 9);
  const Tensor whole = parameter.differentiable();
  EXPECT_TRUE(whole.equal(parameter.full));
  const Tensor factor = at::randn({units, width}, at::kDouble);
  (whole * factor).sum().backward();
  EXPECT_TRUE(parameter.leaves[0].value.grad().equal(factor.narrow(0, 1, 2)));
  EXPECT_TRUE(parameter.leaves[1].value.grad().equal(factor.narrow(0, 4, 3)));
  store.clear_gradients();
  EXPECT_FALSE(parameter.leaves[0].value.grad().defined());
  store.set_trainable({});
  EXPECT_FALSE(parameter.differentiable().requires_grad());
}

}  // namespace
}  // namespace tessera
