#include "models/layers/sliced_linear.h"

#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"

namespace tessera {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// A weight as the backward pass needs it, after the Parameter itself may have been cut in another way.
struct Weight {
  Tensor full;
  std::vector<Rows> rows;
  std::vector<Tensor> leaves;  ///< one per element of rows
};

// The two products are each other's activation gradient: d(x W^T)/dx = dy W, d(z W)/dz = dy W^T. So each
// backward calls the other product, and differentiating twice needs nothing more.
Tensor product_out(const Tensor& x, const Weight& weight);
Tensor product_in(const Tensor& z, const Weight& weight, Input input = Input::of_this);

Tensor columns(const Tensor& matrix, Rows range) {
  return matrix.narrow(1, range.begin, range.count());
}

void remember(AutogradContext* ctx, const Weight& weight, const variable_list& inputs) {
  variable_list saved{weight.full};
  saved.insert(saved.end(), weight.leaves.begin(), weight.leaves.end());
  saved.insert(saved.end(), inputs.begin(), inputs.end());
  ctx->save_for_backward(std::move(saved));
  std::vector<std::int64_t> bounds;
  for (const Rows& rows : weight.rows) bounds.insert(bounds.end(), {rows.begin, rows.end});
  ctx->saved_data["bounds"] = bounds;
}

/// Gives the weight back and leaves the remembered inputs in `inputs`.
Weight recall(AutogradContext* ctx, variable_list& inputs) {
  const std::vector<std::int64_t> bounds = ctx->saved_data["bounds"].toIntVector();
  const variable_list saved = ctx->get_saved_variables();
  Weight weight{saved[0], {}, {}};
  for (std::size_t i = 0; i < bounds.size(); i += 2) weight.rows.push_back({bounds[i], bounds[i + 1]});
  const auto leaves_end = saved.begin() + 1 + static_cast<std::ptrdiff_t>(weight.rows.size());
  weight.leaves.assign(saved.begin() + 1, leaves_end);
  inputs.assign(leaves_end, saved.end());
  return weight;
}

struct LinearOut : torch::autograd::Function<LinearOut> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Weight& weight,
                        at::TensorList /*leaves*/) {
    remember(ctx, weight, weight.leaves.empty() ? variable_list{} : variable_list{x});
    return at::mm(x, weight.full.t());
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    variable_list inputs;
    const Weight weight = recall(ctx, inputs);
    const Tensor& dy = gradients[0];
    variable_list result(2 + weight.leaves.size());  // x, the Weight, leaves
    if (ctx->needs_input_grad(0)) result[0] = product_in(dy, weight);
    for (std::size_t i = 0; i < weight.leaves.size(); ++i) {
      if (ctx->needs_input_grad(1 + i)) result[2 + i] = at::mm(columns(dy, weight.rows[i]).t(), inputs[0]);
    }
    return result;
  }
};

struct LinearIn : torch::autograd::Function<LinearIn> {
  static Tensor forward(AutogradContext* ctx, const Tensor& z, const Weight& weight,
                        at::TensorList /*leaves*/, at::TensorList owned_columns) {
    remember(ctx, weight, owned_columns.vec());
    return at::mm(z, weight.full);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    variable_list owned_columns;
    const Weight weight = recall(ctx, owned_columns);
    const Tensor& dy = gradients[0];
    variable_list result(2 + 2 * weight.leaves.size());  // z, the Weight, leaves, owned columns
    if (ctx->needs_input_grad(0)) result[0] = product_out(dy, weight);
    for (std::size_t i = 0; i < weight.leaves.size(); ++i) {
      if (ctx->needs_input_grad(1 + i)) result[2 + i] = at::mm(owned_columns[i].t(), dy);
    }
    return result;
  }
};

struct AddBias : torch::autograd::Function<AddBias> {
  static Tensor forward(AutogradContext* ctx, const Tensor& y, const Weight& bias,
                        at::TensorList /*leaves*/) {
    std::vector<std::int64_t> bounds;
    for (const Rows& rows : bias.rows) bounds.insert(bounds.end(), {rows.begin, rows.end});
    ctx->saved_data["bounds"] = bounds;
    return y.add(bias.full);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const std::vector<std::int64_t> bounds = ctx->saved_data["bounds"].toIntVector();
    const Tensor& dy = gradients[0];
    variable_list result{dy, Tensor()};  // y, the Weight, leaves
    for (std::size_t i = 0; i < bounds.size(); i += 2) {
      result.push_back(dy.narrow(-1, bounds[i], bounds[i + 1] - bounds[i]).flatten(0, -2).sum(0));
    }
    return result;
  }
};

Tensor product_out(const Tensor& x, const Weight& weight) {
  if (!at::GradMode::is_enabled()) return at::mm(x, weight.full.t());
  return LinearOut::apply(x, weight, at::TensorList(weight.leaves));
}

Tensor product_in(const Tensor& z, const Weight& weight, Input input) {
  if (!at::GradMode::is_enabled()) return at::mm(z, weight.full);
  // Only the owned columns of z are kept for dW. They are cut out here, outside the function, so that a
  // second derivative finds its way back to z through them; in the first one z's gradient comes whole and
  // theirs stays undefined.
  std::vector<Tensor> owned_columns;
  for (const Rows& rows : weight.rows) {
    const bool all = rows.count() == z.size(1);
    const Tensor owned = all ? z : columns(z, rows);
    owned_columns.push_back(input == Input::kept_anyway ? owned : owned.contiguous());
  }
  return LinearIn::apply(z, weight, at::TensorList(weight.leaves), at::TensorList(owned_columns));
}

Weight weight_of(const Parameter& parameter) {
  Weight weight{parameter.full, {}, {}};
  for (const Leaf& leaf : parameter.leaves) {
    weight.rows.push_back(leaf.rows);
    weight.leaves.push_back(leaf.value);
  }
  return weight;
}

/// Rounds to fp16, and the gradient on its way back.
Tensor through_half(const Tensor& x) {
  return x.to(at::kHalf).to(x.scalar_type());
}

Weight half_weight_of(const Parameter& parameter) {
  Weight weight = weight_of(parameter);
  weight.full = through_half(weight.full);
  for (Tensor& leaf : weight.leaves) leaf = through_half(leaf);
  return weight;
}

/// Applies a product of matrices to the last dimension of a tensor with any number of leading ones.
template <class Product>
Tensor on_last_dimension(const Tensor& x, const Weight& weight, Product product) {
  const Tensor y = product(x.reshape({-1, x.size(-1)}), weight);
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = y.size(1);
  return y.view(shape);
}

void check_inputs(const Parameter& weight, const Tensor& x, std::int64_t dimension) {
  TESSERA_CHECK(weight.full.dim() == 2 && x.size(-1) == weight.full.size(dimension), ": ", weight.spec.name,
                " has ", weight.full.size(dimension), " inputs, not ", x.size(-1));
}

}  // namespace

at::Tensor linear_out(const at::Tensor& x, const Parameter& weight) {
  check_inputs(weight, x, 1);
  return on_last_dimension(x, weight_of(weight), product_out);
}

at::Tensor linear_in(const at::Tensor& z, const Parameter& weight, Input input) {
  check_inputs(weight, z, 0);
  return on_last_dimension(z, weight_of(weight), [input](const Tensor& rows, const Weight& w) {
    return product_in(rows, w, input);
  });
}

at::Tensor half_out(const at::Tensor& x, const Parameter& weight) {
  check_inputs(weight, x, 1);
  return through_half(on_last_dimension(through_half(x), half_weight_of(weight), product_out));
}

at::Tensor half_in(const at::Tensor& z, const Parameter& weight) {
  check_inputs(weight, z, 0);
  return through_half(on_last_dimension(
      through_half(z), half_weight_of(weight),
      [](const Tensor& rows, const Weight& w) { return product_in(rows, w, Input::of_this); }));
}

at::Tensor add_bias(const at::Tensor& y, const Parameter& bias) {
  TESSERA_CHECK(bias.full.dim() == 1 && y.size(-1) == bias.full.size(0), ": ", bias.spec.name, " has ",
                bias.full.size(0), " entries, not ", y.size(-1));
  const Weight weight = weight_of(bias);
  return AddBias::apply(y, weight, at::TensorList(weight.leaves));
}

}  // namespace tessera
