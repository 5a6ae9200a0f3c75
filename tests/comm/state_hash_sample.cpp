// Writes two shards of a random state into the folder given and prints the state's digest, for
// tests/reference/state_hash.py to agree with.
#include <iostream>

#include "base/random.h"
#include "comm/hash.h"
#include "comm/storage/files.h"
#include "comm/storage/safetensors.h"

int main(int argc, char** argv) {
  using namespace tessera;
  TESSERA_CHECK_EQ(argc, 2);
  KeyedRandom random(17);
  TensorMap all, shards[2];
  const DType dtypes[] = {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i64, DType::i32, DType::u8};
  for (int i = 0; i < 21; ++i) {
    std::vector<std::int64_t> shape;
    for (int rank = i % 4; rank > 0; --rank) shape.push_back(static_cast<std::int64_t>(random.below(7)));
    HostTensor tensor = HostTensor::empty(dtypes[i % 7], shape);
    for (std::byte& byte : tensor.buffer.bytes) byte = static_cast<std::byte>(random.below(256));
    const std::string name = "blocks." + std::to_string(i) + ".mlp/up[0:" + std::to_string(i) + "]";
    all[name] = shards[i % 2][name] = tensor;
  }
  for (int i = 0; i < 2; ++i) {
    const Buffer file = encode_safetensors(shards[i], {{"shard", std::to_string(i)}});
    const Status written = atomic_write(Path(argv[1]) / (std::to_string(i) + ".safetensors"),
                                        Bytes(file.bytes), Durability::process);
    TESSERA_CHECK(written.ok(), ": ", written.ok() ? "" : written.error().message);
  }
  std::cout << state_digest(all) << std::endl;
}
