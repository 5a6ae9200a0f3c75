// What several codecs share: the refusal of a wrong number of bytes, codes of 2 bytes each, and the layout of
// blocks that have a scale each.
#pragma once
#include <cstdint>
#include <string>

#include "comm/codec.h"
#include "comm/codecs/kernels/kernels.h"

namespace tessera {

/// Refuses bytes that are not as many as so many floats take.
Status check_encoded_size(const Codec& codec, const std::string& name, Bytes bytes, std::size_t elements);

/// A code of 2 bytes for each value.
class HalfCodec : public Codec {
 public:
  using To = decltype(CodecKernels::to_fp16);
  using From = decltype(CodecKernels::from_fp16);
  HalfCodec(std::string name, To to, From from) : name_(std::move(name)), to_(to), from_(from) {}
  std::size_t encoded_bytes(std::size_t elements) const override { return elements * 2; }
  void encode(std::span<const float> values, MutableBytes bytes) const override;
  Status decode(Bytes bytes, std::span<float> values) const override;

 private:
  std::string name_;
  To to_;
  From from_;
};

struct BlockSettings : Settings {
  std::int64_t block = 256;
  void fields(FieldVisitor& f) override {
    f.field({"block", "values that share a scale of 4 bytes; a multiple of 8", between(8, 1 << 20)}, block);
  }
  std::vector<std::string> problems() const override {
    if (block % 8 == 0) return {};
    return {"codec.block = " + std::to_string(block) + " is not a multiple of 8"};
  }
};

/// Runs of `block` values (the last may be shorter) are coded as multiples of a scale of their own:
///   fp32 scale of each block, then the codes of `bits` each, packed from the low end of every byte.
/// A block whose largest magnitude is below 2^-100 has scale 0 and decodes to zeros; one with a value that is
/// not finite or of 2^120 and more has a scale that is not a number.
class BlockCodec : public Codec {
 public:
  BlockCodec(std::string name, std::size_t bits, const BlockSettings& settings, const BlockKernels& kernels);
  std::size_t encoded_bytes(std::size_t elements) const override;
  void encode(std::span<const float> values, MutableBytes bytes) const override;
  Status decode(Bytes bytes, std::span<float> values) const override;

 private:
  std::string name_;
  std::size_t bits_, block_;
  BlockKernels kernels_;
};

}  // namespace tessera
