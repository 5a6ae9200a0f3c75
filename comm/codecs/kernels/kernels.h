// Loops of the codecs, one table per instruction set; the best one that this processor has is chosen once.
// Every level gives the same bits: nothing is fused, and sums are taken in one fixed order.
#pragma once
#include <cstdint>
#include <vector>

namespace tessera {

/// Codes of a block of values relative to a scale (comm/codec_parts.h).
struct BlockKernels {
  /// 0: the block counts as zero; NaN: it cannot be coded.
  float (*scale)(const float* values, std::int64_t count);
  void (*encode)(const float* values, std::int64_t count, float scale, std::uint8_t* codes);
  void (*decode)(const std::uint8_t* codes, std::int64_t count, float scale, float* values);
};

struct Moments {
  double mean = 0, deviation = 0;
};

struct CodecKernels {
  BlockKernels int8, int4, int2, fp8, e3m0;
  void (*to_bf16)(const float* values, std::int64_t count, std::uint16_t* codes);
  void (*from_bf16)(const std::uint16_t* codes, std::int64_t count, float* values);
  void (*to_fp16)(const float* values, std::int64_t count, std::uint16_t* codes);
  void (*from_fp16)(const std::uint16_t* codes, std::int64_t count, float* values);
  /// Mean and standard deviation (of the population) of at least one value; one that is not finite makes
  /// either of them so.
  Moments (*moments)(const float* values, std::int64_t count);
  /// positions[i] = (values[i] - low) * inverse, cut off and held in [0, 2^24); codes[i]: its upper 8 bits.
  void (*bins)(const float* values, std::int64_t count, float low, float inverse, std::uint32_t* positions,
               std::uint8_t* codes);
  void (*look_up)(const std::uint8_t* codes, std::int64_t count, const float* table, float* values);
};

const CodecKernels& codec_kernels();
/// All that this processor can run, the best one first.
std::vector<const CodecKernels*> codec_kernels_levels();

}  // namespace tessera
