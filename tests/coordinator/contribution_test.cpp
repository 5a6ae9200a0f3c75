// What is refused before it is merged: names, shapes, types, sizes, values.
#include <gmock/gmock.h>

#include <limits>

#include "coordinator/merge.h"
#include "tests/coordinator/small_model.h"

namespace tessera {
namespace {

using testing::HasSubstr;

class Contribution : public testing::Test {
 protected:
  Contribution()
      : owned_(small_plan(2, 2).owned_by(1)), pieces_(random_inputs(small_plan(2, 2), 1)[1].pieces) {}
  std::string refusal() const {
    const Status status = validate(pieces_, owned_, small_specs());
    return status.ok() ? "" : status.error().message;
  }
  RowSet owned_;
  TensorMap pieces_;
};

TEST_F(Contribution, ThatHoldsExactlyTheOwnedPiecesIsAccepted) {
  EXPECT_EQ(refusal(), "");
}

TEST_F(Contribution, ThatLacksAPieceIsRefused) {
  pieces_.erase("mlp.bias[4:8]");
  EXPECT_EQ(refusal(), "mlp.bias[4:8] is missing");
}

TEST_F(Contribution, ThatBringsWhatOthersOwnIsRefused) {
  pieces_.emplace("mlp.bias[0:4]", tensor({4}, {0, 0, 0, 0}));
  EXPECT_EQ(refusal(), "mlp.bias[0:4] is not owned by this slot");
}

TEST_F(Contribution, WithAnotherShapeOrTypeIsRefused) {
  pieces_["mlp.up[4:8]"] = HostTensor::zeros(DType::f32, {3, 4});
  EXPECT_EQ(refusal(), "mlp.up[4:8] has shape [3, 4], expected [4, 3]");
  pieces_["mlp.up[4:8]"] = HostTensor::zeros(DType::bf16, {4, 3});
  EXPECT_EQ(refusal(), "mlp.up[4:8] is BF16, expected F32");
}

TEST_F(Contribution, WithFewerBytesThanItsShapeSaysIsRefused) {
  pieces_["norm"].buffer.bytes = pieces_["norm"].buffer.bytes.first(8);
  EXPECT_EQ(refusal(), "norm carries 2 values for shape [3]");
}

TEST_F(Contribution, WithAValueThatIsNotFiniteIsRefusedByName) {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    pieces_["mlp.up[4:8]"].as<float>()[7] = bad;
    EXPECT_THAT(refusal(), HasSubstr("mlp.up[4:8] is not finite: element 7 of 12"));
  }
}

}  // namespace
}  // namespace tessera
