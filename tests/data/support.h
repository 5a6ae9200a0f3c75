// What the data tests share: a scratch folder, generated text and preparation in one line.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/random.h"
#include "data/prepare.h"

namespace tessera::testing {

/// A folder that is gone at the end of the scope.
class ScratchFolder {
 public:
  ScratchFolder()
      : path_(std::filesystem::temp_directory_path() / ("tessera-test-" + random_bits128().hex())) {
    std::filesystem::create_directories(path_);
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  std::string path() const { return path_.string(); }
  std::string operator/(std::string_view name) const { return (path_ / name).string(); }
  void write(const std::string& name, std::string_view text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }

 private:
  std::filesystem::path path_;
};

/// Generated fixture, not language: sentences of made-up words, with a few thousand different ones.
inline std::string generated_text(std::uint64_t seed, std::size_t words) {
  static constexpr const char* syllables[] = {"ta", "mi",  "sol", "ren", "ka",  "vo",
                                              "lu", "per", "an",  "dis", "est", "or"};
  KeyedRandom random(key_of({seed, 0x74657874}));
  std::string text;
  for (std::size_t i = 0; i < words; ++i) {
    for (std::uint64_t part = 0, parts = 1 + random.below(3); part < parts; ++part)
      text += syllables[random.below(12)];
    text += i % 97 == 96 ? ".\n\n" : i % 11 == 10 ? ", " : " ";
  }
  return text;
}

/// Any bytes: characters of 1 to 4 bytes, line ends, tabs, the library's space mark, and some invalid ones.
inline std::string random_utf8(KeyedRandom& random, std::size_t characters, bool valid) {
  std::string text;
  const auto put = [&](std::uint32_t byte) { text.push_back(static_cast<char>(byte)); };
  for (std::size_t i = 0; i < characters; ++i) {
    const auto r = static_cast<std::uint32_t>(random.below(1 << 20));
    switch (random.below(valid ? 9 : 10)) {
      case 0:
        put(0xc2 + r % 30), put(0x80 | (r >> 8 & 0x3f));
        break;
      case 1:
        put(0xe1 + r % 12), put(0x80 | (r >> 4 & 0x3f)), put(0x80 | (r >> 10 & 0x3f));
        break;
      case 2:
        put(0xf1 + r % 3), put(0x80 | (r & 0x3f)), put(0x80 | (r >> 6 & 0x3f)), put(0x80 | (r >> 12 & 0x3f));
        break;
      case 3:
        text += r % 2 ? "\n" : "\t";
        break;
      case 4:
        text += r % 3 ? "  " : "\xe2\x96\x81";
        break;
      case 5:
        text += r % 50 ? "word " : std::string_view("\0<unk><0x41>", 12);
        break;
      case 9:
        put(r & 0xff);
        break;
      default:
        put(0x20 + r % 95);
    }
  }
  return text;
}

}  // namespace tessera::testing
