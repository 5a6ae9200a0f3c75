// Codecs: stateless byte encodings of floats, for contributions and published updates. What keeps state
// between merges is error feedback (comm/changes.h), which works with any of them.
#pragma once
#include <cstddef>
#include <span>

#include "base/error.h"
#include "base/registry.h"
#include "base/tensor.h"

namespace tessera {

class Codec {
 public:
  struct Context {};
  static constexpr const char* kind = "codec";
  virtual ~Codec() = default;

  /// True: the bytes carry the values themselves (theta_end), so nothing is rounded on the way and the
  /// receiver forms the delta in fp64. False: they carry an approximation of a delta.
  virtual bool carries_values() const { return false; }
  /// Bytes that `elements` floats take, whatever their values: both sides check it.
  virtual std::size_t encoded_bytes(std::size_t elements) const = 0;
  /// Fills `bytes`, which are encoded_bytes(values.size()), at any address. A function of the values alone,
  /// on every processor. Values that are not finite, or too large for the format, decode to something that is
  /// not finite, so that the receiver's check finds them.
  virtual void encode(std::span<const float> values, MutableBytes bytes) const = 0;
  /// Fills `values`, the same bits on every processor; fails when the number of bytes does not fit their
  /// number, or the bytes mean nothing.
  virtual Status decode(Bytes bytes, std::span<float> values) const = 0;

  Buffer encode(std::span<const float> values) const {
    Buffer buffer = Buffer::allocate(encoded_bytes(values.size()));
    encode(values, buffer.bytes);
    return buffer;
  }
};

}  // namespace tessera
