// Encoding and decoding against memcpy of the same floats, on one core: bytes per second are those of the
// floats. codec_bench --benchmark_repetitions=9 --benchmark_report_aggregates_only=true
#include <benchmark/benchmark.h>

#include <cstring>

#include "base/random.h"
#include "comm/codec.h"

namespace tessera {
namespace {

constexpr std::size_t count = std::size_t{16} << 20;  // 64 MiB of floats: larger than caches

std::vector<float> some_floats() {
  std::vector<float> values(count);
  KeyedRandom random(1);
  for (std::size_t i = 0; i < 65536; ++i) values[i] = static_cast<float>(1e-3 * random.normal());
  for (std::size_t i = 65536; i < count; ++i) values[i] = values[i % 65521] * 1.0001f;
  return values;
}

void done(benchmark::State& state) {
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * count * sizeof(float)));
}

void copy(benchmark::State& state) {
  const std::vector<float> from = some_floats();
  std::vector<float> to(count);
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), count * sizeof(float));
    benchmark::ClobberMemory();
  }
  done(state);
}

void encode(benchmark::State& state, const std::string& name) {
  const auto codec = Registry<Codec>::builtin().make(name, {});
  const std::vector<float> values = some_floats();
  std::vector<std::byte> bytes(codec->encoded_bytes(count));
  for (auto _ : state) {
    codec->encode(values, bytes);
    benchmark::ClobberMemory();
  }
  done(state);
}

void decode(benchmark::State& state, const std::string& name) {
  const auto codec = Registry<Codec>::builtin().make(name, {});
  std::vector<float> values = some_floats();
  const Buffer bytes = codec->encode(values);
  for (auto _ : state) {
    if (!codec->decode(bytes.bytes, values).ok()) state.SkipWithError("refused");
    benchmark::ClobberMemory();
  }
  done(state);
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  benchmark::RegisterBenchmark("memcpy", tessera::copy);
  for (const std::string& name : tessera::Registry<tessera::Codec>::builtin().names()) {
    benchmark::RegisterBenchmark(("encode/" + name).c_str(), tessera::encode, name);
    benchmark::RegisterBenchmark(("decode/" + name).c_str(), tessera::decode, name);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
