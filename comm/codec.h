// Codecs: stateless byte encodings of rows of floats, for contributions and published parameters. What keeps
// state between merges (error feedback) is a method and lives in optim/outer.
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
  virtual bool carries_values() const = 0;
  /// Bytes that `elements` floats take, whatever their values: both sides check it.
  virtual std::size_t encoded_bytes(std::size_t elements) const = 0;
  virtual Buffer encode(std::span<const float> values) const = 0;
  /// Fills `values`; fails when the number of bytes does not fit their number, or the bytes mean nothing.
  virtual Status decode(Bytes bytes, std::span<float> values) const = 0;
};

}  // namespace tessera
