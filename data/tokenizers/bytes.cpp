// The tokenizer "bytes": every byte is a token, so any text works and nothing has to be learnt.
#include <array>

#include "comm/hash.h"
#include "data/tokenizer.h"

namespace tessera {
namespace {

constexpr std::int64_t byte_values = 256;
constexpr std::array<char, 256> all_bytes = [] {
  std::array<char, 256> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i);
  return bytes;
}();

class BytesTokenizer final : public Tokenizer {
 public:
  BytesTokenizer(const NoSettings&, const Context& context) : wanted_(context.vocab) {}

  Status train(std::string_view) override { return load(); }
  Status load() override {
    if (wanted_ != 0 && wanted_ != byte_values)
      return fail(ExitCode::usage, "the tokenizer 'bytes' has 256 tokens, but a vocabulary of ", wanted_,
                  " is asked for: leave it out, set it to 256, or choose 'sentencepiece'");
    return {};
  }
  std::int64_t vocab() const override { return byte_values; }
  Digest digest() const override { return digest_of(std::string_view("tokenizer bytes 1")); }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> ids(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) ids[i] = static_cast<unsigned char>(text[i]);
    return ids;
  }

  std::string_view surface(std::int32_t id) const override {
    TESSERA_CHECK(id >= 0 && id < byte_values, ": token ", id);
    return {&all_bytes[static_cast<std::size_t>(id)], 1};
  }

 private:
  std::int64_t wanted_;
};

}  // namespace

TESSERA_REGISTER(Tokenizer, bytes, BytesTokenizer, NoSettings,
                 "Every byte is a token (256); nothing to learn");

}  // namespace tessera
