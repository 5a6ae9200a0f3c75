// Loss and every gradient of gpt against an independent PyTorch model with the same weights
// (tests/reference/).
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include "tests/models/fixtures.h"

namespace tessera {
namespace {

using namespace testing;

void compare(const Golden& golden, const std::string& name, at::ScalarType type, const char* block) {
  SCOPED_TRACE(name + " " + block);
  const double bound = type == at::kDouble ? 1e-10 : 1e-5;
  Json settings = golden.settings.at(name);
  settings["block"] = block;
  Trainee model(make_plugin<Family>("gpt", settings), 1, type);
  std::size_t used = 0;
  for (auto& [param, parameter] : model.params.all()) {
    ASSERT_TRUE(golden.tensors.contains(name + "/weight/" + param)) << param;
    const at::Tensor& weight = golden.at(name + "/weight/" + param);
    ASSERT_EQ(weight.sizes(), parameter.full.sizes()) << param;
    parameter.full.copy_(weight);
    ++used;
  }
  for (const auto& [key, tensor] : golden.tensors) used -= key.starts_with(name + "/weight/") ? 1 : 0;
  EXPECT_EQ(used, 0) << "the reference has other parameters";

  model.params.set_all_trainable();
  const double loss =
      model.backward({{"tokens", golden.at(name + "/tokens")}, {"targets", golden.at(name + "/targets")}});
  const double expected = golden.at(name + "/loss").item<double>();
  EXPECT_NEAR(loss, expected, bound * expected);
  EXPECT_NEAR(loss, golden.at(name + "/loss_f32").item<float>(), 1e-5 * expected);
  for (const auto& [param, parameter] : model.params.all()) {
    // A bias of the keys moves all scores of a query alike: without rotary positions its gradient is zero but
    // for rounding, so it is compared to the size of the other gradients.
    const double floor = param.ends_with("k_bias") ? 0.1 : 0;
    const at::Tensor& gradient = golden.at(name + "/gradient/" + param);
    EXPECT_LT(relative_error(parameter.leaves[0].value.grad(), gradient, floor), bound) << param;
  }
}

TEST(GptParity, LossAndEveryGradientEqualPyTorchInDouble) {
  const Golden golden("gpt.safetensors");
  for (const auto& [name, settings] : golden.settings.items()) compare(golden, name, at::kDouble, "plain");
}

TEST(GptParity, LossAndEveryGradientEqualPyTorchInFloat) {
  const Golden golden("gpt.safetensors");
  for (const auto& [name, settings] : golden.settings.items()) {
    for (const char* block : {"fast", "plain"}) compare(golden, name, at::kFloat, block);
  }
}

TEST(GptParity, StoredVectorsCameFromTheScriptInTheTree) {
  const std::string script =
      digest_of(read_text(TESSERA_SOURCE_DIR "/tests/reference/gpt_reference.py")).hex();
  for (const char* file : {"gpt.safetensors", "optimizers.safetensors"}) {
    const Golden golden(file);
    EXPECT_EQ(golden.script, script) << file << ": remake it with tests/reference/gpt_reference.py";
    EXPECT_EQ(golden.torch.substr(0, 4), "2.11") << file;
  }
}

}  // namespace
}  // namespace tessera
