#include "comm/codec_parts.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tessera {
namespace {

/// Calls visit(first, count, halves) for stretches of so many elements, with aligned room for their codes of
/// 2 bytes: the bytes on the wire may lie at odd addresses.
template <class Visit>
void through_halves(std::size_t elements, Visit visit) {
  constexpr std::size_t stretch = 2048;  // stays in the nearest cache
  std::uint16_t halves[stretch];
  for (std::size_t at = 0; at < elements; at += stretch)
    visit(at, elements - at < stretch ? elements - at : stretch, halves);
}

}  // namespace

Status check_encoded_size(const Codec& codec, const std::string& name, Bytes bytes, std::size_t elements) {
  if (bytes.size() == codec.encoded_bytes(elements)) return {};
  return fail(ExitCode::failed, name, ": ", bytes.size(), " bytes came for ", elements,
              " floats, which take ", codec.encoded_bytes(elements));
}

void HalfCodec::encode(std::span<const float> values, MutableBytes bytes) const {
  TESSERA_CHECK_EQ(bytes.size(), encoded_bytes(values.size()));
  through_halves(values.size(), [&](std::size_t at, std::size_t count, std::uint16_t* halves) {
    to_(values.data() + at, static_cast<std::int64_t>(count), halves);
    std::memcpy(bytes.data() + 2 * at, halves, 2 * count);
  });
}

Status HalfCodec::decode(Bytes bytes, std::span<float> values) const {
  TESSERA_TRY(check_encoded_size(*this, name_, bytes, values.size()));
  through_halves(values.size(), [&](std::size_t at, std::size_t count, std::uint16_t* halves) {
    std::memcpy(halves, bytes.data() + 2 * at, 2 * count);
    from_(halves, static_cast<std::int64_t>(count), values.data() + at);
  });
  return {};
}

BlockCodec::BlockCodec(std::string name, std::size_t bits, const BlockSettings& settings,
                       const BlockKernels& kernels)
    : name_(std::move(name)),
      bits_(bits),
      block_(static_cast<std::size_t>(settings.block)),
      kernels_(kernels) {
  TESSERA_CHECK_EQ(block_ % 8, 0u);
}

std::size_t BlockCodec::encoded_bytes(std::size_t elements) const {
  return (elements + block_ - 1) / block_ * sizeof(float) + (elements * bits_ + 7) / 8;
}

void BlockCodec::encode(std::span<const float> values, MutableBytes bytes) const {
  TESSERA_CHECK_EQ(bytes.size(), encoded_bytes(values.size()));
  const std::size_t blocks = (values.size() + block_ - 1) / block_;
  std::byte* codes = bytes.data() + blocks * sizeof(float);
  for (std::size_t b = 0; b < blocks; ++b) {
    const std::span<const float> block =
        values.subspan(b * block_, std::min(block_, values.size() - b * block_));
    const auto count = static_cast<std::int64_t>(block.size());
    const std::size_t size = (block.size() * bits_ + 7) / 8;
    const float scale = kernels_.scale(block.data(), count);
    std::memcpy(bytes.data() + b * sizeof(float), &scale, sizeof scale);
    if (scale > 0) {
      kernels_.encode(block.data(), count, scale, reinterpret_cast<std::uint8_t*>(codes));
    } else {
      std::memset(codes, 0, size);
    }
    codes += size;
  }
}

Status BlockCodec::decode(Bytes bytes, std::span<float> values) const {
  TESSERA_TRY(check_encoded_size(*this, name_, bytes, values.size()));
  const std::size_t blocks = (values.size() + block_ - 1) / block_;
  const std::byte* codes = bytes.data() + blocks * sizeof(float);
  for (std::size_t b = 0; b < blocks; ++b) {
    const std::span<float> block = values.subspan(b * block_, std::min(block_, values.size() - b * block_));
    float scale = 0;
    std::memcpy(&scale, bytes.data() + b * sizeof(float), sizeof scale);
    kernels_.decode(reinterpret_cast<const std::uint8_t*>(codes), static_cast<std::int64_t>(block.size()),
                    scale, block.data());
    codes += (block.size() * bits_ + 7) / 8;
  }
  return {};
}

}  // namespace tessera
