// What tests of models and optimizers share: settings from JSON, golden files as tensors, a model ready to
// train.
#pragma once
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "comm/hash.h"
#include "comm/storage/safetensors.h"
#include "models/family.h"
#include "optim/inner.h"
#include "optim/objective.h"

namespace tessera::testing {

using Json = nlohmann::json;

/// Takes values from a JSON object; every key must be a field.
class JsonFields final : public FieldVisitor {
 public:
  static void read(Settings& settings, const Json& json) {
    JsonFields visitor(json);
    settings.fields(visitor);
    EXPECT_EQ(visitor.used_, json.size()) << json;
    EXPECT_EQ(settings.problems(), std::vector<std::string>{});
  }
  void field(const FieldInfo& info, bool& value) override { take(info, value); }
  void field(const FieldInfo& info, std::int64_t& value) override { take(info, value); }
  void field(const FieldInfo& info, double& value) override { take(info, value); }
  void field(const FieldInfo& info, std::string& value) override { take(info, value); }
  void field(const FieldInfo& info, std::vector<double>& value) override { take(info, value); }
  void field(const FieldInfo& info, std::vector<std::string>& value) override { take(info, value); }
  void group(const FieldInfo&, Settings& settings) override { settings.fields(*this); }
  void choice(const FieldInfo&, std::string&, const SettingsCatalog&, std::unique_ptr<Settings>&) override {}

 private:
  explicit JsonFields(const Json& json) : json_(json) {}
  template <class T>
  void take(const FieldInfo& info, T& value) {
    if (!json_.contains(info.name)) return;
    value = json_.at(info.name).get<T>();
    ++used_;
  }
  const Json& json_;
  std::size_t used_ = 0;
};

/// A plug-in with the settings of a JSON object.
template <class Product>
std::unique_ptr<Product> make_plugin(const std::string& name, const Json& json,
                                     const typename Product::Context& context = {}) {
  auto& registry = Registry<Product>::builtin();
  auto settings = registry.make_settings(name);
  JsonFields::read(*settings, json);
  return registry.make(name, *settings, context);
}

inline std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A copy of an array of a file.
inline at::Tensor to_tensor(const HostTensor& host) {
  const auto type = host.dtype == DType::f32   ? at::kFloat
                    : host.dtype == DType::f64 ? at::kDouble
                                               : at::kLong;
  TESSERA_CHECK(type != at::kLong || host.dtype == DType::i64);
  at::Tensor tensor = at::Tensor(at::detail::empty_cpu(host.shape, type));
  std::copy(host.bytes().begin(), host.bytes().end(), static_cast<std::byte*>(tensor.mutable_data_ptr()));
  return tensor;
}

/// tests/golden/FILE: its tensors, and the settings of each case from its metadata.
struct Golden {
  std::map<std::string, at::Tensor> tensors;
  Json settings;
  std::string torch, script;

  explicit Golden(const std::string& file) {
    const std::string text = read_text(std::string(TESSERA_SOURCE_DIR "/tests/golden/") + file);
    auto decoded = decode_safetensors(Buffer::copy_of(std::as_bytes(std::span(text))), file);
    TESSERA_CHECK(decoded.ok(), ": ", decoded.error().message);
    for (const auto& [name, host] : decoded->tensors) tensors[name] = to_tensor(host);
    settings = Json::parse(decoded->metadata.at("settings"));
    torch = decoded->metadata.at("torch");
    script = decoded->metadata.at("script_xxh3_128");
  }
  const at::Tensor& at(const std::string& name) const { return tensors.at(name); }
};

/// The largest difference between two tensors, relative to the larger of the expected one's largest element
/// and `floor`.
inline double relative_error(const at::Tensor& actual, const at::Tensor& expected, double floor = 0) {
  if (actual.sizes() != expected.sizes()) return std::numeric_limits<double>::infinity();
  const at::Tensor want = expected.detach().to(at::kDouble);
  const double scale = std::max(floor, want.abs().max().item<double>());
  return (actual.detach().to(at::kDouble) - want).abs().max().item<double>() / scale;
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.detach().equal(b.detach());
}

/// A family with parameters and an objective, and a step: forward, backward, and the pieces with their
/// gradients.
struct Trainee {
  std::unique_ptr<Family> family;
  std::unique_ptr<Objective> objective = Registry<Objective>::builtin().make("cross_entropy", {});
  ParamStore params;

  Trainee(std::unique_ptr<Family> made, std::uint64_t seed, at::ScalarType type = at::kFloat)
      : family(std::move(made)), params(family->specs(), type) {
    family->initialize(params, seed);
  }
  at::Tensor loss(const NamedTensors& batch) const {
    const Objective::Value value = (*objective)(family->forward(params, batch), batch);
    return value.sum / value.weight;
  }
  double backward(const NamedTensors& batch) {
    params.clear_gradients();
    const at::Tensor mean = loss(batch);
    mean.backward();
    return mean.item<double>();
  }
  std::vector<Piece> pieces() const {
    std::vector<Piece> pieces;
    for (const auto& [name, parameter] : params.all()) {
      for (const Leaf& leaf : parameter.leaves) {
        pieces.push_back({piece_name(name, leaf.rows, parameter.spec.rows()), leaf.value, leaf.value.grad(),
                          parameter.spec.decay});
      }
    }
    return pieces;
  }
};

}  // namespace tessera::testing
