// Attention of one group of heads, at the instruction set of the including file. Scores live in a few
// rows of scratch at a time; only the log of each row's sum is kept, and the backward pass makes them again.
#pragma once
#include "models/layers/kernels/dropout_core.h"
#include "models/layers/kernels/elementwise_core.h"
#include "models/layers/kernels/gemm_core.h"

namespace tessera {
namespace {

/// Queries that the backward pass takes at a time.
constexpr std::int64_t query_block = tile_rows == 14 ? 56 : 54;

inline float* take(float*& scratch, std::int64_t count) {
  float* const taken = scratch;
  scratch += up_to(count, 16);
  return taken;
}

inline Packed pack_into(float*& scratch, MatrixView b, std::int64_t inner, std::int64_t columns) {
  float* const out = take(scratch, inner * up_to(columns, panel));
  pack(b, inner, columns, out);
  return {out, inner, columns};
}

/// Turns a row of scores into exp(score - highest); entries [valid, all) become zero. Gives the sum and the
/// highest scaled score.
inline float exponentials(float* scores, std::int64_t valid, std::int64_t all, float scale, float& highest) {
  Vec top = splat(scores[0]);
  std::int64_t j = 0;
  for (; j + lanes <= valid; j += lanes) top = larger(load(scores + j), top);
  float peak = largest(top);
  for (; j < valid; ++j) peak = scores[j] > peak ? scores[j] : peak;
  highest = peak * scale;
  Vec total{};
  for (j = 0; j < all; j += lanes) {
    const Vec value = exp(fma(load(scores + j, all - j), splat(scale), splat(-highest)));
    const IntVec inside = counting() + static_cast<std::int32_t>(j) < static_cast<std::int32_t>(valid);
    const Vec kept = inside ? value : Vec{};
    total += kept;
    store(scores + j, kept, all - j);
  }
  return sum(total);
}

/// The row of the dropout's mask that a query has.
inline std::int64_t mask_row(const AttentionShape& s, std::int64_t sequence, std::int64_t head,
                             std::int64_t query) {
  return (sequence * s.heads + head) * s.length + query;
}

/// Zeros at `columns` columns of rows [begin, end).
inline void clear(float* rows, std::int64_t stride, std::int64_t begin, std::int64_t end,
                  std::int64_t columns) {
  for (std::int64_t row = begin; row < end; ++row) {
    for (std::int64_t c = 0; c < columns; ++c) rows[row * stride + c] = 0;
  }
}

inline void attention_forward(const AttentionForward& attention, std::int64_t sequence, std::int64_t group,
                              float* scratch) {
  const AttentionShape& s = attention.shape;
  const std::int64_t per_group = s.heads / s.groups, wide = up_to(s.length, panel), width = s.heads * s.size;
  const std::int64_t length = s.valid(sequence);
  const float* const rows = attention.qkv + sequence * s.length * s.stride;
  const float* const keys = rows + (s.heads + group) * s.size;
  const Packed packed_keys = pack_into(scratch, {keys, s.stride, true}, s.size, length);
  const Packed values = pack_into(scratch, {keys + s.groups * s.size, s.stride}, length, s.size);
  float* const scores = take(scratch, tile_rows * wide);
  for (std::int64_t head = group * per_group; head < (group + 1) * per_group; ++head) {
    const float* const queries = rows + head * s.size;
    float* const out = attention.out + sequence * s.length * width + head * s.size;
    float* const normaliser = attention.normaliser + (sequence * s.heads + head) * s.length;
    for (std::int64_t first = 0; first < length; first += tile_rows) {
      const std::int64_t count = least(tile_rows, length - first), seen = s.causal ? first + count : length;
      multiply({queries + first * s.stride, s.stride}, packed_keys, 0, count, s.size, seen, {scores, wide});
      float inverse[tile_rows];
      for (std::int64_t i = 0; i < count; ++i) {
        float highest;
        const std::int64_t valid = s.causal ? first + i + 1 : length;
        const float total = exponentials(scores + i * wide, valid, seen, s.scale, highest);
        normaliser[first + i] = highest + __builtin_logf(total);
        inverse[i] = 1.0f / total;
        if (s.dropout.drops())
          drop_row(scores + i * wide, valid, s.dropout, mask_row(s, sequence, head, first + i));
      }
      multiply({scores, wide}, values, 0, count, seen, s.size, {out + first * width, width});
      for (std::int64_t i = 0; i < count; ++i) {
        float* const row = out + (first + i) * width;
        for (std::int64_t c = 0; c < s.size; c += lanes) {
          store(row + c, load(row + c, s.size - c) * inverse[i], s.size - c);
        }
      }
    }
    clear(out, width, length, s.length, s.size);
    clear(normaliser, 1, length, s.length, 1);
  }
}

/// p: scores -> probabilities, as masked; d: their gradients -> gradients of the scores. Entries [valid, all)
/// become zero.
template <bool drops>
inline void score_gradients(float* p, float* d, std::int64_t valid, std::int64_t all, float scale,
                            float normaliser, float mean, const DropoutMask& mask, std::int64_t row) {
  const RowKey key = drops ? row_key(mask, row) : RowKey{};
  for (std::int64_t j = 0; j < all; j += lanes) {
    const std::int64_t count = all - j;
    const IntVec inside = counting() + static_cast<std::int32_t>(j) < static_cast<std::int32_t>(valid);
    const Vec probability = exp(fma(load(p + j, count), splat(scale), splat(-normaliser)));
    const Vec factor = drops ? mask_factors(mask, key, j) : Vec{};
    const Vec gradient = drops ? load(d + j, count) * factor : load(d + j, count);
    const Vec slope = probability * (gradient - mean) * scale;
    store(p + j, inside ? (drops ? probability * factor : probability) : Vec{}, count);
    store(d + j, inside ? slope : Vec{}, count);
  }
}

inline float dot(const float* a, const float* b, std::int64_t count) {
  Vec total{};
  for (std::int64_t i = 0; i < count; i += lanes)
    total = fma(load(a + i, count - i), load(b + i, count - i), total);
  return sum(total);
}

inline void attention_backward(const AttentionBackward& attention, std::int64_t sequence, std::int64_t group,
                               float* scratch) {
  const AttentionShape& s = attention.shape;
  const std::int64_t per_group = s.heads / s.groups, wide = up_to(s.length, panel), width = s.heads * s.size;
  const std::int64_t length = s.valid(sequence);
  const std::int64_t key_column = (s.heads + group) * s.size, value_column = key_column + s.groups * s.size;
  const float* const rows = attention.qkv + sequence * s.length * s.stride;
  float* const gradients = attention.dqkv + sequence * s.length * s.stride;
  const Packed key_columns = pack_into(scratch, {rows + key_column, s.stride, true}, s.size, length);
  const Packed value_columns = pack_into(scratch, {rows + value_column, s.stride, true}, s.size, length);
  const Packed key_rows = pack_into(scratch, {rows + key_column, s.stride}, length, s.size);
  float* const query_room = take(scratch, query_block * up_to(s.size, panel));
  float* const dout_room = take(scratch, query_block * up_to(s.size, panel));
  float* const p = take(scratch, query_block * wide);
  float* const d = take(scratch, query_block * wide);
  const auto gradients_of = s.dropout.drops() ? score_gradients<true> : score_gradients<false>;
  clear(gradients + group * per_group * s.size, s.stride, length, s.length, per_group * s.size);
  clear(gradients + key_column, s.stride, 0, s.length, s.size);
  clear(gradients + value_column, s.stride, 0, s.length, s.size);
  for (std::int64_t head = group * per_group; head < (group + 1) * per_group; ++head) {
    const std::int64_t from = sequence * s.length * width + head * s.size;
    const float* const normaliser = attention.normaliser + (sequence * s.heads + head) * s.length;
    for (std::int64_t first = 0; first < length; first += query_block) {
      const std::int64_t block = least(query_block, length - first), seen = s.causal ? first + block : length;
      const float* const queries = rows + first * s.stride + head * s.size;
      const float* const out = attention.out + from + first * width;
      const float* const dout = attention.dout + from + first * width;
      for (std::int64_t row = 0; row < block; row += tile_rows) {
        const std::int64_t end = least(row + tile_rows, block), visible = s.causal ? first + end : length;
        multiply({queries, s.stride}, key_columns, row, end, s.size, visible, {p, wide});
        multiply({dout, width}, value_columns, row, end, s.size, visible, {d, wide});
        for (std::int64_t i = row; i < end; ++i) {
          gradients_of(p + i * wide, d + i * wide, s.causal ? first + i + 1 : length, seen, s.scale,
                       normaliser[first + i], dot(out + i * width, dout + i * width, s.size), s.dropout,
                       mask_row(s, sequence, head, first + i));
        }
        multiply({d, wide}, key_rows, row, end, visible, s.size,
                 {gradients + first * s.stride + head * s.size, s.stride});
      }
      float* room = query_room;
      const Packed packed_queries = pack_into(room, {queries, s.stride}, block, s.size);
      room = dout_room;
      const Packed packed_dout = pack_into(room, {dout, width}, block, s.size);
      float* const dkeys = gradients + key_column;
      float* const dvalues = gradients + value_column;
      multiply({d, wide, true}, packed_queries, 0, seen, block, s.size, {dkeys, s.stride, dkeys, s.stride});
      multiply({p, wide, true}, packed_dout, 0, seen, block, s.size, {dvalues, s.stride, dvalues, s.stride});
    }
  }
}

}  // namespace
}  // namespace tessera
