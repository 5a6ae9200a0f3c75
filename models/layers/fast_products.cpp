#include "models/layers/fast_products.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "base/error.h"

namespace tessera {
namespace {

constexpr std::int64_t sum_run = 64;  ///< rows of one partial sum

std::int64_t divide_up(std::int64_t x, std::int64_t y) {
  return (x + y - 1) / y;
}

}  // namespace

std::string fast_kernel_level() {
  return kernels().level;
}

std::string why_not(Precision precision) {
  if (precision == Precision::fp32 || bf16_products() != nullptr) return "";
  return "this processor has no bf16 products (AVX512-BF16), and without them bf16 would be slower than fp32";
}

void round_to_bf16(const float* from, std::int64_t count, void* to) {
  const ProductKernels* const products = bf16_products();
  TESSERA_CHECK(products != nullptr, ": ", why_not(Precision::bf16));
  auto* const halves = static_cast<std::uint16_t*>(to);
  at::parallel_for(0, count, 1 << 18, [&](std::int64_t begin, std::int64_t end) {
    products->round(from + begin, end - begin, halves + begin);
  });
}

std::int64_t WeightMatrix::units() const {
  std::int64_t units = 0;
  for (const RowRun& run : runs) units += run.rows;
  return units;
}

FastProducts::FastProducts(Precision precision, std::shared_ptr<Arena> arena)
    : products_(precision == Precision::bf16 && bf16_products() != nullptr ? *bf16_products()
                                                                           : kernels_.products),
      arena_(std::move(arena)) {
  TESSERA_CHECK(why_not(precision).empty(), ": ", why_not(precision));
}

/// Pairs of bf16 take half of this, and an odd inner dimension one more.
std::int64_t FastProducts::packed_elements(std::int64_t inner, std::int64_t columns) const {
  return (inner + 1) * divide_up(columns, products_.panel) * products_.panel;
}

Panels FastProducts::pack(MatrixView right, std::int64_t inner, std::int64_t columns) const {
  ArenaBuffer memory = take(packed_elements(inner, columns));
  products_.pack(right, inner, columns, memory.data());
  return {{memory.data(), inner, columns}, std::move(memory)};
}

Panels FastProducts::pack(const WeightMatrix& weight, Through through) const {
  const bool transposed = through == Through::out;
  const std::int64_t units = weight.units(), inner = transposed ? weight.width : units,
                     columns = transposed ? units : weight.width;
  if (const float* all = weight.together())
    return pack(MatrixView{all, weight.width, transposed}, inner, columns);
  TESSERA_CHECK(products_.pack_runs != nullptr, ": rows in bf16 need products in bf16");
  ArenaBuffer memory = take(packed_elements(inner, columns));
  products_.pack_runs({weight.runs.data(), weight.width, transposed}, inner, columns, memory.data());
  return {{memory.data(), inner, columns}, std::move(memory)};
}

void FastProducts::multiply(FlopKind kind, MatrixView left, std::int64_t rows, const Panels& right,
                            Target target) const {
  const std::int64_t per_row = right.packed.inner * right.packed.columns;
  count_flops(kind, static_cast<double>(rows) * static_cast<double>(per_row));
  const std::int64_t grain = std::max<std::int64_t>(28, (1 << 20) / std::max<std::int64_t>(1, per_row));
  at::parallel_for(0, rows, grain, [&](std::int64_t begin, std::int64_t end) {
    products_.multiply(left, right.packed, begin, end, target);
  });
}

template <class Each>
void FastProducts::over_heads(const AttentionShape& shape, Each each) const {
  const std::int64_t tasks = shape.batch * shape.groups, scratch = attention_scratch(shape);
  const std::int64_t threads = std::min<std::int64_t>(at::get_num_threads(), tasks);
  const ArenaBuffer memory = take(threads * scratch);
  at::parallel_for(0, threads, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t thread = begin; thread < end; ++thread) {
      for (std::int64_t task = thread * tasks / threads; task < (thread + 1) * tasks / threads; ++task) {
        each(task / shape.groups, task % shape.groups, memory.data() + thread * scratch);
      }
    }
  });
}

namespace {

/// Multiply-adds of the scores of attention, and of each further product of that size: all pairs of valid
/// positions, or half of them where it is causal, as everywhere (base/cost_model.h).
double pair_products(const AttentionShape& s) {
  double pairs = 0;
  for (std::int64_t sequence = 0; sequence < s.batch; ++sequence) {
    const auto length = static_cast<double>(s.valid(sequence));
    pairs += length * length / (s.causal ? 2 : 1);
  }
  return static_cast<double>(s.heads * s.size) * pairs;
}

}  // namespace

void FastProducts::drop(const DropRows& drop, std::int64_t rows) const {
  over_rows(rows, drop.width, [&](std::int64_t begin, std::int64_t end) { kernels_.drop(drop, begin, end); });
}

void FastProducts::attention(const AttentionForward& attention) const {
  count_flops(FlopKind::forward, 2 * pair_products(attention.shape));
  over_heads(attention.shape, [&](std::int64_t sequence, std::int64_t group, float* scratch) {
    kernels_.attention_forward(attention, sequence, group, scratch);
  });
}

void FastProducts::attention(const AttentionBackward& attention) const {
  // Gradients of probabilities, values, queries and keys; that the scores are made again is not counted.
  count_flops(FlopKind::activation_gradient, 4 * pair_products(attention.shape));
  over_heads(attention.shape, [&](std::int64_t sequence, std::int64_t group, float* scratch) {
    kernels_.attention_backward(attention, sequence, group, scratch);
  });
}

void FastProducts::over_rows(std::int64_t rows, std::int64_t width, const Pass& pass) const {
  at::parallel_for(0, rows, std::max<std::int64_t>(1, 32768 / width), pass);
}

void FastProducts::over_rows(std::int64_t rows, std::int64_t width, float* sums, std::int64_t sum_width,
                             const SumPass& pass) const {
  if (sums == nullptr) {
    over_rows(rows, width, [&](std::int64_t begin, std::int64_t end) { pass(begin, end, nullptr); });
    return;
  }
  const std::int64_t runs = divide_up(rows, sum_run);
  const ArenaBuffer partial = take(runs * sum_width);
  std::fill_n(partial.data(), runs * sum_width, 0.0f);
  at::parallel_for(0, runs, std::max<std::int64_t>(1, 32768 / (width * sum_run)),
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t run = begin; run < end; ++run) {
                       pass(run * sum_run, std::min(rows, (run + 1) * sum_run),
                            partial.data() + run * sum_width);
                     }
                   });
  std::fill_n(sums, sum_width, 0.0f);
  kernels_.add_rows(partial.data(), sum_width, sums, sum_width, runs);
}

}  // namespace tessera
