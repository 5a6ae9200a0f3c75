#include "data/prepare.h"

#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/corpus.h"
#include "data/source.h"
#include "data/token_file.h"
#include "tests/data/support.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::generated_text;
using ::testing::HasSubstr;
using testing::ScratchFolder;

/// Prepares or ends the test with the Error's sentence.
Prepared prepared(const PrepareRequest& request) {
  auto result = prepare_text(request);
  if (!result.ok()) {
    ADD_FAILURE() << result.error().message;
    return {};
  }
  return *result;
}

std::string refusal(const PrepareRequest& request) {
  auto result = prepare_text(request);
  EXPECT_FALSE(result.ok());
  return result.ok() ? "" : result.error().message;
}

void flip_last_byte(const fs::path& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-1, std::ios::end);
  const char last = static_cast<char>(file.get() ^ 0x10);
  file.seekp(-1, std::ios::end);
  file.put(last);
}

class Prepare : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_.write("train.txt", generated_text(1, 5000));
    folder_.write("held_out.txt", generated_text(2, 500));
  }
  ScratchFolder folder_;
};

TEST_F(Prepare, IsDoneOnceForATextATokenizerAndASize) {
  const PrepareRequest request{.path = folder_.path(), .tokenizer = "sentencepiece", .vocab = 400};
  const Prepared first = prepared(request), again = prepared(request);
  EXPECT_FALSE(first.found);
  EXPECT_TRUE(again.found);
  EXPECT_EQ(again.folder, first.folder);
  EXPECT_EQ(again.train_tokens, first.train_tokens);

  const Prepared other_size = prepared({.path = folder_.path(), .tokenizer = "sentencepiece", .vocab = 401});
  const Prepared bytes = prepared({.path = folder_.path()});
  folder_.write("train.txt", generated_text(3, 5000));
  const Prepared other_text = prepared(request);
  EXPECT_FALSE(other_size.found || bytes.found || other_text.found);
  EXPECT_NE(other_size.folder, first.folder);
  EXPECT_NE(other_text.folder, first.folder);
  EXPECT_TRUE(fs::exists(first.folder));
}

TEST_F(Prepare, TokensDecodeToTheTextAndCountItsBytesAndWords) {
  const Prepared there = prepared({.path = folder_.path(), .tokenizer = "sentencepiece", .vocab = 400});
  const auto tokenizer = load_tokenizer("sentencepiece", there.folder);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  const std::string held_out = generated_text(2, 500);
  const auto file = TokenFile::open(there.folder + "/held_out.tokens");
  std::vector<std::int32_t> ids;
  for (std::uint64_t i = 0; i < file->count(); ++i) ids.push_back(static_cast<std::int32_t>((*file)[i]));
  EXPECT_EQ((*tokenizer)->decode(ids), held_out);
  const auto bytes = TokenFile::open(there.folder + "/held_out.bytes"),
             words = TokenFile::open(there.folder + "/held_out.words");
  EXPECT_EQ(bytes->sum(0, bytes->count()), held_out.size());
  EXPECT_EQ(words->sum(0, words->count()), 500u);
  EXPECT_EQ(there.held_out_words, 500u);
  EXPECT_EQ(there.held_out_bytes, held_out.size());
  EXPECT_EQ(there.train_words, 5000u);
}

TEST_F(Prepare, MakesADamagedFolderAfresh) {
  const PrepareRequest request{.path = folder_.path(), .tokenizer = "sentencepiece", .vocab = 400};
  const std::string folder = prepared(request).folder;
  for (const auto& entry : std::vector<fs::directory_entry>(fs::directory_iterator(folder), {})) {
    SCOPED_TRACE(entry.path());
    fs::resize_file(entry.path(), entry.file_size() - 1);
    EXPECT_FALSE(prepared(request).found) << "cut short";
    flip_last_byte(entry.path());
    EXPECT_FALSE(prepared(request).found) << "a bit flipped";
    EXPECT_TRUE(prepared(request).found);
  }
}

TEST_F(Prepare, ConcurrentProcessesDoItOnceAndAgree) {
  const PrepareRequest request{.path = folder_.path(), .tokenizer = "sentencepiece", .vocab = 400};
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      const auto result = prepare_text(request);
      _exit(!result.ok() ? 9 : result->found ? 1 : 2);
    }
    children.push_back(child);
  }
  int made = 0;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) != 9);
    made += WEXITSTATUS(status) == 2;
  }
  EXPECT_EQ(made, 1);
  EXPECT_TRUE(prepared(request).found);
}

TEST_F(Prepare, RemovesWhatAKilledRunLeft) {
  const PrepareRequest request{.path = folder_.path()};
  const std::string folder = prepared(request).folder;
  fs::rename(folder, folder + ".tmp-0123");
  EXPECT_FALSE(prepared(request).found);
  EXPECT_FALSE(fs::exists(folder + ".tmp-0123"));
}

TEST_F(Prepare, TakesAnyBytesAsText) {
  KeyedRandom random(5);
  std::string junk;
  for (int i = 0; i < 5000; ++i) junk.push_back(static_cast<char>(random.below(256)));
  folder_.write("train.txt", junk);
  folder_.write("held_out.txt", junk);
  EXPECT_EQ(prepared({.path = folder_.path()}).train_tokens, 5000u);
  EXPECT_EQ(prepared({.path = folder_.path(), .tokenizer = "sentencepiece", .vocab = 800}).held_out_bytes,
            5000u);
}

TEST(Corpus, HoldsOutTheFileOfThatNameOrTheLastTenthFromALineStartOn) {
  const ScratchFolder folder;
  folder.write("b.txt", "bbbb\n");
  folder.write("a.txt", std::string(50, 'a') + "\n" + std::string(50, 'c') + "\n");
  folder.write("notes.md", "not text");
  const auto split = read_corpus(folder.path());
  EXPECT_EQ(split->held_out, "bbbb\n");
  EXPECT_EQ(split->train.size(), 102u);
  folder.write("held_out.txt", "kept\n");
  const auto named = read_corpus(folder.path());
  EXPECT_EQ(named->held_out, "kept\n");
  EXPECT_EQ(named->train.size(), 107u);
  const auto single = read_corpus(folder / "a.txt");
  EXPECT_EQ(single->train.size() + single->held_out.size(), 102u);
  EXPECT_EQ(single->folder, folder.path());
}

TEST(Corpus, TooLittleTextIsRefusedWithTheNumbers) {
  const ScratchFolder folder;
  EXPECT_THAT(refusal({.path = folder / "nowhere"}), HasSubstr("nowhere"));
  EXPECT_THAT(refusal({.path = folder.path()}), HasSubstr("holds no .txt file"));
  folder.write("train.txt", "");
  EXPECT_THAT(refusal({.path = folder.path()}), HasSubstr("0 bytes of training text"));
  folder.write("train.txt", "some text");
  folder.write("held_out.txt", "");
  EXPECT_THAT(refusal({.path = folder.path()}), HasSubstr("0 of held-out text"));
  folder.write("held_out.txt", "12345");
  EXPECT_TRUE(prepare_text({.path = folder.path(), .context = 4}).ok());
  EXPECT_THAT(refusal({.path = folder.path(), .context = 5}), HasSubstr("held-out text gives 5 tokens"));
  EXPECT_THAT(refusal({.path = folder.path(), .context = 5}), HasSubstr("one window needs 6"));
  EXPECT_THAT(refusal({.path = folder.path(), .context = 64}), HasSubstr("training text gives 9 tokens"));
}

TEST(Corpus, AnUnknownTokenizerIsNamedWithTheNearest) {
  EXPECT_THAT(refusal({.path = "/nowhere", .tokenizer = "byte"}), HasSubstr("did you mean 'bytes'"));
}

}  // namespace
}  // namespace tessera
