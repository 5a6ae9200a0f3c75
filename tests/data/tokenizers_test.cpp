#include <gmock/gmock.h>
#include <tessera_plugins/sources.h>
#include <tessera_plugins/tokenizers.h>

#include <algorithm>

#include "data/source.h"
#include "data/tokenizer.h"
#include "tests/data/support.h"

namespace tessera {
namespace {

using testing::generated_text;
using ::testing::HasSubstr;
using testing::random_utf8;
using testing::ScratchFolder;

TEST(DataPlugins, StemsAreTheRegisteredNames) {
  EXPECT_EQ(Registry<Tokenizer>::builtin().names(),
            std::vector<std::string>(std::begin(plugins::tokenizers), std::end(plugins::tokenizers)));
  EXPECT_EQ(Registry<DataSource>::builtin().names(),
            std::vector<std::string>(std::begin(plugins::sources), std::end(plugins::sources)));
}

class EveryTokenizer : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    tokenizer_ = make();
    const Status trained = tokenizer_->train(generated_text(1, 20000));
    ASSERT_TRUE(trained.ok()) << trained.error().message;
  }
  std::unique_ptr<Tokenizer> make() const {
    return Registry<Tokenizer>::builtin().make(GetParam(),
                                               {folder_.path(), GetParam() == "bytes" ? 256 : 512});
  }
  ScratchFolder folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(EveryTokenizer, GivesBackAnyText) {
  KeyedRandom random(key_of({7}));
  for (int trial = 0; trial < 200; ++trial) {
    SCOPED_TRACE("seed 7, trial " + std::to_string(trial));
    const std::string text = random_utf8(random, 1 + random.below(400), trial % 2 == 0);
    const auto ids = tokenizer_->encode(text);
    for (const auto id : ids) ASSERT_LT(id, tokenizer_->vocab());
    ASSERT_EQ(tokenizer_->decode(ids), text);
  }
  for (const std::string odd :
       {"\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xc0\x80", "\xe2\x96",
        "a\xff", "\xef\xbf\xbd", "\xef\xbb\xbf", "e\xcc\x81 \xef\xac\x81", " \r\n \n\n  "})
    EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(odd)), odd) << ::testing::PrintToString(odd);
  const std::string one_long_line(100000, 'x');
  EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(one_long_line)), one_long_line);
  EXPECT_TRUE(tokenizer_->encode("").empty());
}

TEST_P(EveryTokenizer, EncodesWholeLinesOneByOneAsTheWhole) {
  const std::string text = generated_text(3, 3000) + "no line end";
  std::vector<std::int32_t> joined;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.size(), text.find('\n', begin)) + 1;
    const auto ids = tokenizer_->encode(std::string_view(text).substr(begin, end - begin));
    joined.insert(joined.end(), ids.begin(), ids.end());
    begin = end;
  }
  EXPECT_EQ(joined, tokenizer_->encode(text));
}

TEST_P(EveryTokenizer, IsTheSameAfterLoadingAndAfterTrainingAgain) {
  const std::string text = generated_text(2, 500);
  const auto loaded = make();
  ASSERT_TRUE(loaded->load().ok());
  EXPECT_EQ(loaded->digest(), tokenizer_->digest());
  EXPECT_EQ(loaded->encode(text), tokenizer_->encode(text));
  const auto again = make();
  ASSERT_TRUE(again->train(generated_text(1, 20000)).ok());
  EXPECT_EQ(again->digest(), tokenizer_->digest());
}

INSTANTIATE_TEST_SUITE_P(Data, EveryTokenizer, ::testing::ValuesIn(Registry<Tokenizer>::builtin().names()),
                         [](const auto& info) { return info.param; });

TEST(Bytes, RefusesAnotherVocabulary) {
  const auto bytes = Registry<Tokenizer>::builtin().make("bytes", {"", 512});
  const Status status = bytes->load();
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.error().message, HasSubstr("512"));
}

TEST(Sentencepiece, LearnsTheWantedNumberOfTokensThatAreLongerThanBytes) {
  for (const std::string model : {"unigram", "bpe"}) {
    SCOPED_TRACE(model);
    const ScratchFolder folder;
    auto& registry = Registry<Tokenizer>::builtin();
    const auto settings = registry.make_settings("sentencepiece");
    struct SetModel final : FieldVisitor {
      std::string value;
      void field(const FieldInfo&, bool&) override {}
      void field(const FieldInfo&, std::int64_t&) override {}
      void field(const FieldInfo&, double&) override {}
      void field(const FieldInfo& info, std::string& text) override {
        text = info.name == "model" ? value : text;
      }
      void field(const FieldInfo&, std::vector<double>&) override {}
      void field(const FieldInfo&, std::vector<std::string>&) override {}
      void group(const FieldInfo&, Settings&) override {}
      void choice(const FieldInfo&, std::string&, const SettingsCatalog&,
                  std::unique_ptr<Settings>&) override {}
    } set_model;
    set_model.value = model;
    settings->fields(set_model);
    const auto tokenizer = registry.make("sentencepiece", *settings, {folder.path(), 400});
    const std::string text = generated_text(1, 20000);
    ::testing::internal::CaptureStderr();
    const Status trained = tokenizer->train(text);
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "") << "the library must be silent";
    ASSERT_TRUE(trained.ok()) << trained.error().message;
    EXPECT_EQ(tokenizer->vocab(), 400);
    EXPECT_LT(tokenizer->encode(text).size() * 2, text.size());
  }
}

TEST(Sentencepiece, LearnsFromLinesWithTabsAndZeroBytes) {
  for (const char special : {'\t', '\0'}) {
    const ScratchFolder folder;
    const auto tokenizer = Registry<Tokenizer>::builtin().make("sentencepiece", {folder.path(), 400});
    std::string text = generated_text(1, 5000);
    std::ranges::replace(text, ',', special);  // several in every line
    const Status trained = tokenizer->train(text);
    ASSERT_TRUE(trained.ok()) << trained.error().message;
    EXPECT_EQ(tokenizer->vocab(), 400);
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
}

TEST(Sentencepiece, NamesAModelThatIsMissingOrDamaged) {
  const ScratchFolder folder;
  const auto tokenizer = Registry<Tokenizer>::builtin().make("sentencepiece", {folder.path(), 512});
  const Status missing = tokenizer->load();
  ASSERT_FALSE(missing.ok());
  EXPECT_THAT(missing.error().message, HasSubstr(folder / "sentencepiece.model"));
  folder.write("sentencepiece.model", "not a model at all");
  const Status damaged = tokenizer->load();
  ASSERT_FALSE(damaged.ok());
  EXPECT_THAT(damaged.error().message, HasSubstr(folder / "sentencepiece.model"));
}

TEST(Sentencepiece, SaysSoWhenTheTextIsTooSmallToLearnFrom) {
  const ScratchFolder folder;
  const auto tokenizer = Registry<Tokenizer>::builtin().make("sentencepiece", {folder.path(), 4096});
  const Status status = tokenizer->train("\xff\xfe");
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.error().message, HasSubstr("SentencePiece could not"));
}

}  // namespace
}  // namespace tessera
