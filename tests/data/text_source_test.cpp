#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "data/corpus.h"
#include "data/source.h"
#include "data/token_file.h"
#include "tests/data/support.h"

namespace tessera {
namespace {

using testing::generated_text;
using ::testing::HasSubstr;
using testing::ScratchFolder;

constexpr std::int64_t context = 16;

class TextSource : public ::testing::Test {
 protected:
  void SetUp() override {
    train_ = generated_text(1, 150);
    held_out_ = generated_text(2, 100);
    folder_.write("train.txt", train_);
    folder_.write("held_out.txt", held_out_);
    auto prepared = prepare_text({.path = folder_.path(), .context = context});
    ASSERT_TRUE(prepared.ok()) << prepared.error().message;
    prepared_ = *prepared;
  }
  std::unique_ptr<DataSource> open(std::uint64_t seed = 5, std::int32_t slots = 3) const {
    auto source = Registry<DataSource>::builtin().make("text", {prepared_.folder, seed, slots, context});
    const Status opened = source->open();
    EXPECT_TRUE(opened.ok()) << opened.error().message;
    return source;
  }
  /// Where in the text a row of bytes lies; the rows of the generated text are all different.
  std::size_t window_of(std::span<const std::int64_t> tokens) const {
    const std::string row(tokens.begin(), tokens.end());
    const std::size_t at = train_.find(row);
    EXPECT_NE(at, std::string::npos);
    EXPECT_EQ(at % context, 0u);
    return at / context;
  }
  std::string train_, held_out_;
  ScratchFolder folder_;
  Prepared prepared_;
};

TEST_F(TextSource, TargetsAreTheTokensShiftedByOne) {
  const Batch batch = open()->train(SlotId{1}, 0, 8);
  const HostTensor &tokens = batch.tensors.at("tokens"), &targets = batch.tensors.at("targets");
  EXPECT_EQ(tokens.shape, (std::vector<std::int64_t>{8, context}));
  EXPECT_EQ(targets.shape, tokens.shape);
  EXPECT_EQ(tokens.dtype, DType::i64);
  EXPECT_EQ(batch.units, 8.0 * context);
  for (std::int64_t row = 0; row < 8; ++row) {
    const auto in = tokens.rows({row, row + 1}).as<std::int64_t>(),
               out = targets.rows({row, row + 1}).as<std::int64_t>();
    const std::size_t begin = window_of(in) * context;
    for (std::size_t i = 0; i < context; ++i)
      ASSERT_EQ(out[i], static_cast<unsigned char>(train_[begin + 1 + i]));
  }
}

TEST_F(TextSource, SlotsOfAnEpochAreDisjointAndTogetherComplete) {
  for (const std::int32_t slots : {1, 2, 3, 5, 8}) {
    const auto source = open(5, slots);
    const std::uint64_t windows = source->samples();
    ASSERT_EQ(windows, (train_.size() - 1) / context);
    std::vector<std::vector<std::size_t>> order(4);  // by epoch: the windows in order of their global index
    for (std::uint64_t index = 0; index < 4 * windows; ++index) {
      const SlotId slot{static_cast<std::int32_t>(index % static_cast<std::uint64_t>(slots))};
      const Batch one = source->train(slot, index / static_cast<std::uint64_t>(slots), 1);
      order[index / windows].push_back(window_of(one.tensors.at("tokens").as<std::int64_t>()));
    }
    for (std::size_t epoch = 0; epoch < 4; ++epoch) {
      SCOPED_TRACE(::testing::Message() << slots << " slots, epoch " << epoch);
      EXPECT_EQ(std::set<std::size_t>(order[epoch].begin(), order[epoch].end()).size(), windows);
      EXPECT_FALSE(std::is_sorted(order[epoch].begin(), order[epoch].end()));
      EXPECT_TRUE(epoch == 0 || order[epoch] != order[epoch - 1]);
    }
  }
}

TEST_F(TextSource, ThePositionAloneDecidesABatchAndResumingMidEpochSeesTheSame) {
  const auto source = open(), other_process = open();
  const Batch whole = source->train(SlotId{2}, 7, 6);
  other_process->train(SlotId{0}, 123456, 2);  // reads elsewhere change nothing
  EXPECT_TRUE(bit_equal(other_process->train(SlotId{2}, 7, 6).tensors, whole.tensors));
  const Batch resumed = other_process->train(SlotId{2}, 10, 3);
  EXPECT_TRUE(std::ranges::equal(resumed.tensors.at("targets").as<std::int64_t>(),
                                 whole.tensors.at("targets").rows({3, 6}).as<std::int64_t>()));
  EXPECT_FALSE(bit_equal(open(6)->train(SlotId{2}, 7, 6).tensors, whole.tensors));
}

TEST_F(TextSource, HeldOutBatchesAreTheTextInReadingOrderWithItsBytesAndWords) {
  const auto source = open();
  std::string seen;
  double bytes = 0, words = 0, units = 0;
  std::uint64_t index = 0;
  for (; auto batch = source->held_out(index, 5); ++index) {
    const auto targets = batch->tensors.at("targets").as<std::int64_t>();
    const std::string text(targets.begin(), targets.end());
    EXPECT_EQ(batch->bytes, static_cast<double>(text.size()));
    seen += text;
    bytes += batch->bytes, words += batch->words, units += batch->units;
  }
  const std::size_t remainder = (held_out_.size() - 1) % context;
  EXPECT_EQ(seen, held_out_.substr(1, held_out_.size() - 1 - remainder));
  EXPECT_EQ(units, static_cast<double>(seen.size()));
  EXPECT_EQ(bytes, static_cast<double>(held_out_.size() - 1 - remainder));
  // A word counts where its first byte is: the very first one is no target.
  EXPECT_EQ(words, static_cast<double>(count_words(held_out_.substr(0, 1 + seen.size())) - 1));
  EXPECT_FALSE(source->held_out(index + 1, 5).has_value());
  EXPECT_FALSE(source->held_out(1ull << 62, 4).has_value()) << "index times count is beyond 64 bits";
}

TEST_F(TextSource, SubwordBatchesCountTheBytesAndWordsBehindTheirTargets) {
  auto prepared =
      prepare_text({.path = folder_.path(), .tokenizer = "sentencepiece", .vocab = 340, .context = context});
  ASSERT_TRUE(prepared.ok()) << prepared.error().message;
  const auto tokenizer = load_tokenizer("sentencepiece", prepared->folder);
  auto source = Registry<DataSource>::builtin().make("text", {prepared->folder, 5, 1, context});
  ASSERT_TRUE(source->open().ok());
  std::string seen;
  double words = 0;
  for (std::uint64_t index = 0; auto batch = source->held_out(index, 2); ++index) {
    const auto targets = batch->tensors.at("targets").as<std::int64_t>();
    const std::string text = (*tokenizer)->decode({targets.begin(), targets.end()});
    EXPECT_EQ(batch->bytes, static_cast<double>(text.size()));
    seen += text;
    words += batch->words;
  }
  EXPECT_NE(held_out_.find(seen), std::string::npos);
  EXPECT_NEAR(words, static_cast<double>(count_words(seen)), 1);
}

TEST_F(TextSource, CountsEveryTrainingToken) {
  const auto counts = open()->token_counts();
  ASSERT_EQ(counts.size(), 256u);
  for (const char c : {'t', ' ', '\n', 'z'})
    EXPECT_EQ(counts[static_cast<unsigned char>(c)],
              static_cast<std::uint64_t>(std::ranges::count(train_, c)));
}

TEST_F(TextSource, DigestChangesWithTheDataOnly) {
  const auto digest = open()->digest();
  EXPECT_EQ(open(9, 7)->digest(), digest);
  folder_.write("held_out.txt", held_out_ + "!");
  prepared_ = *prepare_text({.path = folder_.path()});
  EXPECT_NE(open()->digest(), digest);
}

TEST_F(TextSource, RefusesDamagedOrMixedFilesByName) {
  const auto refusal = [&] {
    auto source = Registry<DataSource>::builtin().make("text", {prepared_.folder, 5, 3, context});
    const Status status = source->open();
    EXPECT_FALSE(status.ok());
    return status.ok() ? "" : status.error().message;
  };
  namespace fs = std::filesystem;
  const std::string train = prepared_.folder + "/train.tokens", words = prepared_.folder + "/held_out.words";
  fs::copy(words, folder_ / "words");
  fs::copy_file(train, words, fs::copy_options::overwrite_existing);
  EXPECT_THAT(refusal(), HasSubstr(words));
  fs::copy_file(folder_ / "words", words, fs::copy_options::overwrite_existing);
  fs::copy_file(train, folder_ / "train");
  TokenFileWriter other(300);
  other.append(std::vector<std::int32_t>(1000, 299));
  ASSERT_TRUE(other.write(train, {}, {}).ok());
  EXPECT_THAT(refusal(), HasSubstr(train));
  fs::copy_file(folder_ / "train", train, fs::copy_options::overwrite_existing);
  fs::resize_file(train, fs::file_size(train) - 1);
  EXPECT_THAT(refusal(), HasSubstr(train));
  fs::remove(train);
  EXPECT_THAT(refusal(), HasSubstr(train));
}

TEST_F(TextSource, RefusesMoreContextThanThereIsText) {
  auto source = Registry<DataSource>::builtin().make("text", {prepared_.folder, 5, 3, 100000});
  const Status status = source->open();
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.error().message, HasSubstr("one window needs 100001"));
}

}  // namespace
}  // namespace tessera
