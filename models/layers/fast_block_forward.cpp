#include "models/layers/fast_block_state.h"
#include "models/layers/fast_weight.h"

namespace tessera {

void BlockState::rotate(float* rows_of_qkv, bool back) const {
  if (!cos.defined()) return;
  const std::int64_t half = shape.head_size / 2;
  const float *c = cos.const_data_ptr<float>(), *s = sin.const_data_ptr<float>();
  products.over_rows(rows(), qkv_width(), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t angles = row % length * half;
      // Keys lie behind the queries.
      products.kernels().rotate(rows_of_qkv + row * qkv_width(), shape.heads + shape.groups, shape.head_size,
                                c + angles, s + angles, back);
    }
  });
}

namespace {

ArenaBuffer normed(const BlockState& s, const float* x, const Parameter* gain, const Parameter* bias,
                   ArenaBuffer& statistics) {
  ArenaBuffer y = s.products.take(s.rows() * s.shape.width);
  statistics = s.products.take(2 * s.rows());
  const NormForward norm{x,          values(gain), values(bias), y.data(), statistics.data(), s.shape.width,
                         s.shape.rms};
  s.products.over_rows(s.rows(), s.shape.width, [&](std::int64_t begin, std::int64_t end) {
    s.products.kernels().norm_forward(norm, begin, end);
  });
  return y;
}

/// to [rows, units] = x W^T + bias, in columns of a wider matrix.
void project(const BlockState& s, const ArenaBuffer& x, const Parameter* weight, const Parameter* bias,
             float* to, std::int64_t stride) {
  s.products.multiply(FlopKind::forward, {x.data(), s.shape.width}, s.rows(), matrix_of(*weight),
                      Through::out, {.data = to, .stride = stride, .bias = values(bias)});
}

}  // namespace

void project_back(const BlockState& s, const ArenaBuffer& z, const Parameter* weight, const Parameter* bias,
                  const float* residual, DropoutPlace place, float* to) {
  const std::int64_t units = weight->spec.rows(), width = s.shape.width;
  const DropoutMask mask = s.options.dropout.mask(place);
  s.products.multiply(FlopKind::forward, {z.data(), units}, s.rows(), matrix_of(*weight), Through::in,
                      {to, width, mask.drops() ? nullptr : residual, width, values(bias)});
  if (mask.drops())
    s.products.drop({.mask = mask, .x = to, .residual = residual, .y = to, .width = width}, s.rows());
}

void attend(BlockState& s, const FastBlockParameters& p, bool keep_normed) {
  s.normed1 = normed(s, s.x.const_data_ptr<float>(), p.norm1_gain, p.norm1_bias, s.statistics1);
  s.qkv = s.products.take(s.rows() * s.qkv_width());
  float* const q = s.qkv.data();
  float* const k = q + s.queries();
  project(s, s.normed1, p.q, p.q_bias, q, s.qkv_width());
  project(s, s.normed1, p.k, p.k_bias, k, s.qkv_width());
  project(s, s.normed1, p.v, p.v_bias, k + s.keys(), s.qkv_width());
  if (!keep_normed) s.normed1.release();
  s.rotate(q, false);
  s.attended = s.products.take(s.rows() * s.queries());
  s.normaliser = s.products.take(s.rows() * s.shape.heads);
  s.products.attention(AttentionForward{s.attention(), q, s.attended.data(), s.normaliser.data()});
  s.middle = s.products.take(s.rows() * s.shape.width);
  project_back(s, s.attended, p.o, p.o_bias, s.x.const_data_ptr<float>(), DropoutPlace::attention,
               s.middle.data());
}

ArenaBuffer hidden_units(BlockState& s, const FastBlockParameters& p, bool keep_normed) {
  const std::int64_t ffn = s.shape.ffn;
  s.normed2 = normed(s, s.middle.data(), p.norm2_gain, p.norm2_bias, s.statistics2);
  ArenaBuffer up = s.products.take(s.rows() * ffn), hidden = s.products.take(s.rows() * ffn);
  project(s, s.normed2, p.up, p.up_bias, up.data(), ffn);
  if (s.shape.swiglu) {
    s.slope = s.products.take(s.rows() * ffn);
    project(s, s.normed2, p.gate, p.gate_bias, s.slope.data(), ffn);
    s.products.over_rows(s.rows(), ffn, [&](std::int64_t begin, std::int64_t end) {
      s.products.kernels().swiglu(s.slope.data() + begin * ffn, up.data() + begin * ffn,
                                  hidden.data() + begin * ffn, (end - begin) * ffn);
    });
    s.slope_up = std::move(up);
  } else {
    s.products.over_rows(s.rows(), ffn, [&](std::int64_t begin, std::int64_t end) {
      s.products.kernels().gelu(up.data() + begin * ffn, hidden.data() + begin * ffn, (end - begin) * ffn);
    });
    s.slope = std::move(up);
  }
  if (!keep_normed) s.normed2.release();
  return hidden;
}

}  // namespace tessera
