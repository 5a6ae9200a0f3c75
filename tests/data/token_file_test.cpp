#include "data/token_file.h"

#include <gmock/gmock.h>

#include <functional>
#include <iterator>

#include "tests/data/support.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;
using testing::ScratchFolder;

const Digest text{1, 2}, tokenizer{3, 4};

std::string write_tokens(const ScratchFolder& folder, std::uint64_t vocab,
                         const std::vector<std::int32_t>& tokens) {
  TokenFileWriter writer(vocab);
  writer.append(tokens);
  const std::string path = folder / "x.tokens";
  const Status written = writer.write(path, text, tokenizer);
  EXPECT_TRUE(written.ok()) << written.error().message;
  return path;
}

std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST(TokenFile, KeepsTokensOfBothWidthsAndWhatTheyAreMadeOf) {
  for (const std::uint64_t vocab : {65536ull, 65537ull, 1ull << 31}) {
    SCOPED_TRACE(vocab);
    const ScratchFolder folder;
    const auto last = static_cast<std::int32_t>(vocab - 1);
    const auto file = TokenFile::open(write_tokens(folder, vocab, {0, 1, 300, 40000, last}));
    ASSERT_TRUE(file.ok()) << file.error().message;
    EXPECT_TRUE(file->verify().ok());
    EXPECT_EQ(file->info().vocab, vocab);
    EXPECT_EQ(file->info().text, text);
    EXPECT_EQ(file->info().tokenizer, tokenizer);
    std::vector<std::int64_t> read(3);
    file->read(2, read);
    EXPECT_EQ(read, (std::vector<std::int64_t>{300, 40000, last}));
    EXPECT_EQ(file->sum(1, 3), 40301u);
    EXPECT_EQ(slurp(file->path()).size(), 128 + 5 * (vocab == 65536 ? 2 : 4));
  }
}

TEST(TokenFile, StaysReadableWhenItsNameIsGone) {
  const ScratchFolder folder;
  const auto file = TokenFile::open(write_tokens(folder, 10, {7, 8, 9}));
  std::filesystem::remove(file->path());
  EXPECT_EQ((*file)[2], 9);
}

TEST(TokenFile, EveryFlippedByteIsNoticedAndTheFileNamed) {
  const ScratchFolder folder;
  const std::string path = write_tokens(folder, 10, {7, 8, 9}), good = slurp(path);
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    folder.write("x.tokens", bad);
    const auto file = TokenFile::open(path);
    ASSERT_EQ(file.ok(), at >= 128) << "byte " << at
                                    << ": the header is checked on opening, the tokens by verify()";
    const Status status = file.ok() ? file->verify() : Status(file.error());
    ASSERT_FALSE(status.ok()) << "byte " << at;
    EXPECT_THAT(status.error().message, HasSubstr(path));
    EXPECT_EQ(status.error().code, ExitCode::storage);
  }
}

TEST(TokenFile, EveryCutLengthIsRefused) {
  const ScratchFolder folder;
  const std::string path = write_tokens(folder, 10, {7, 8, 9}), good = slurp(path);
  for (std::size_t length = 0; length < good.size(); ++length) {
    folder.write("x.tokens", good.substr(0, length));
    const auto file = TokenFile::open(path);
    ASSERT_FALSE(file.ok()) << length;
    EXPECT_THAT(file.error().message, HasSubstr(path));
  }
  folder.write("x.tokens", good + "z");
  EXPECT_FALSE(TokenFile::open(path).ok());
  std::filesystem::remove(path);
  EXPECT_THAT(TokenFile::open(path).error().message, HasSubstr("No such file"));
}

TEST(TokenFile, AWriterThatFailsLeavesNothing) {
  const ScratchFolder folder;
  TokenFileWriter writer(10);
  writer.append(std::vector<std::int32_t>{1});
  std::filesystem::create_directory(folder / "taken");
  folder.write("taken/inside", "");
  const Status status = writer.write(folder / "taken", text, tokenizer);  // a folder has the name
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()),
                          std::filesystem::directory_iterator()),
            1);
}

TEST(TokenFileDeathTest, ATokenOutsideTheVocabularyIsABug) {
  EXPECT_DEATH(TokenFileWriter(10).append(std::vector<std::int32_t>{10}), "token 10");
}

}  // namespace
}  // namespace tessera
