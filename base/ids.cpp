#include "base/ids.h"

#include <charconv>
#include <random>

namespace tessera {

std::string Bits128::hex() const {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text(32, '0');
  for (int i = 0; i < 16; ++i) {
    text[i] = digits[(high >> (60 - 4 * i)) & 15];
    text[16 + i] = digits[(low >> (60 - 4 * i)) & 15];
  }
  return text;
}

std::optional<Bits128> Bits128::from_hex(std::string_view text) {
  if (text.size() != 32) return std::nullopt;
  Bits128 bits;
  auto parse = [](std::string_view part, std::uint64_t& word) {
    auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), word, 16);
    return error == std::errc() && end == part.data() + part.size();
  };
  if (!parse(text.substr(0, 16), bits.high) || !parse(text.substr(16), bits.low)) return std::nullopt;
  return bits;
}

Bits128 random_bits128() {
  std::random_device device;
  auto word = [&] { return (std::uint64_t{device()} << 32) | device(); };
  return {word(), word()};
}

}  // namespace tessera
