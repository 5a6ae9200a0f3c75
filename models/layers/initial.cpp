#include "models/layers/initial.h"

#include "base/error.h"
#include "base/random.h"

namespace tessera {
namespace {

/// FNV-1a, 64 bits.
std::uint64_t hash_of(const std::string& name) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3ull;
  return hash;
}

template <class Draw>
void fill(Parameter& parameter, Draw draw) {
  const std::int64_t count = parameter.spec.elements();
  if (parameter.split()) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = draw();
    parameter.write(values.data());
    return;
  }
  const at::Tensor& tensor = parameter.full;
  if (tensor.scalar_type() == at::kFloat) {
    float* out = tensor.mutable_data_ptr<float>();
    for (std::int64_t i = 0; i < count; ++i) out[i] = draw();
  } else {
    TESSERA_CHECK(tensor.scalar_type() == at::kDouble);
    double* out = tensor.mutable_data_ptr<double>();
    for (std::int64_t i = 0; i < count; ++i) out[i] = draw();
  }
}

}  // namespace

void fill_normal(Parameter& parameter, double standard_deviation, std::uint64_t seed) {
  KeyedRandom random(key_of({seed, hash_of(parameter.spec.name)}));
  fill(parameter, [&] { return static_cast<float>(standard_deviation * random.normal()); });
}

void fill_constant(Parameter& parameter, double value) {
  fill(parameter, [&] { return static_cast<float>(value); });
}

}  // namespace tessera
