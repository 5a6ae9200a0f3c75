// The data source "text": windows of T + 1 tokens at stride T over a prepared corpus (data/prepare.h).
//
// Order: a slot's endless stream position g is the global index g * slots + slot; index / windows is the
// epoch, and a keyed permutation of (seed, epoch) maps the rest to a window. So the slots of an epoch are
// disjoint and together complete, and any position can be asked for at any time.
#include <algorithm>
#include <filesystem>
#include <numeric>

#include "base/random.h"
#include "comm/hash.h"
#include "data/corpus.h"
#include "data/prepare.h"
#include "data/source.h"
#include "data/token_file.h"

namespace tessera {
namespace {

constexpr std::uint64_t order_purpose =
    0x6f72646572;  // "order": keeps these draws apart from others of the same seed

class TextSource final : public DataSource {
 public:
  TextSource(const NoSettings&, const Context& context) : context_(context) {
    TESSERA_CHECK(context.context > 0 && context.slots > 0, ": context ", context.context, ", slots ",
                  context.slots);
  }

  Status open() override {
    TESSERA_TRY(open_file(prepared_file::train, train_));
    TESSERA_TRY(open_file(prepared_file::held_out, held_out_));
    TESSERA_TRY(open_file(prepared_file::held_out_bytes, bytes_));
    TESSERA_TRY(open_file(prepared_file::held_out_words, words_));
    if (train_.info().vocab != held_out_.info().vocab ||
        train_.info().tokenizer != held_out_.info().tokenizer)
      return fail(ExitCode::storage, "token files ", train_.path(), " and ", held_out_.path(),
                  " were made with different tokenizers or vocabularies");
    for (const TokenFile* file : {&bytes_, &words_})
      if (file->count() != held_out_.count())
        return fail(ExitCode::storage, "token file ", file->path(), " has ", file->count(),
                    " entries for the ", held_out_.count(), " tokens of ", held_out_.path());
    return enough_tokens(context_.path, train_.count(), held_out_.count(), context_.context);
  }

  std::string unit() const override { return "tokens"; }
  std::int64_t vocab() const override { return static_cast<std::int64_t>(train_.info().vocab); }
  std::uint64_t samples() const override { return windows(train_); }
  Digest digest() const override {
    Hasher hasher;
    for (const TokenFile* file : {&train_, &held_out_})
      hasher.add(file->info().vocab).add(file->info().tokenizer).add(file->info().content);
    return hasher.digest();
  }

  Batch train(SlotId slot, std::uint64_t first, std::uint64_t count) const override {
    TESSERA_CHECK(slot.value >= 0 && slot.value < context_.slots, ": slot ", slot, " of ", context_.slots);
    std::vector<std::uint64_t> chosen(count);
    for (std::uint64_t i = 0; i < count; ++i) chosen[i] = window_at(slot, first + i);
    return batch_of(train_, chosen);
  }

  std::optional<Batch> held_out(std::uint64_t index, std::uint64_t count) const override {
    TESSERA_CHECK(count > 0);
    const std::uint64_t all = windows(held_out_);
    if (index > all / count || index * count >= all) return std::nullopt;
    std::vector<std::uint64_t> chosen(std::min(count, all - index * count));
    std::iota(chosen.begin(), chosen.end(), index * count);
    Batch batch = batch_of(held_out_, chosen);
    const std::uint64_t first_target = chosen.front() * length() + 1, targets = chosen.size() * length();
    batch.bytes = static_cast<double>(bytes_.sum(first_target, targets));
    batch.words = static_cast<double>(words_.sum(first_target, targets));
    return batch;
  }

  std::vector<std::uint64_t> token_counts() const override {
    std::vector<std::uint64_t> counts(train_.info().vocab, 0);
    for (std::uint64_t i = 0; i < train_.count(); ++i) ++counts[static_cast<std::size_t>(train_[i])];
    return counts;
  }

 private:
  Status open_file(const char* name, TokenFile& file) {
    TESSERA_ASSIGN(file, TokenFile::open((std::filesystem::path(context_.path) / name).string()));
    return file.verify();
  }

  std::uint64_t length() const { return static_cast<std::uint64_t>(context_.context); }
  std::uint64_t windows(const TokenFile& file) const { return (file.count() - 1) / length(); }

  std::uint64_t window_at(SlotId slot, std::uint64_t position) const {
    const std::uint64_t all = samples();
    const std::uint64_t index =
        position * static_cast<std::uint64_t>(context_.slots) + static_cast<std::uint64_t>(slot.value);
    const KeyedPermutation order(key_of({context_.seed, order_purpose, index / all}), all);
    return order(index % all);
  }

  Batch batch_of(const TokenFile& file, const std::vector<std::uint64_t>& chosen) const {
    const std::vector<std::int64_t> shape{static_cast<std::int64_t>(chosen.size()), context_.context};
    Batch batch;
    HostTensor tokens = HostTensor::empty(DType::i64, shape), targets = HostTensor::empty(DType::i64, shape);
    for (std::size_t row = 0; row < chosen.size(); ++row) {
      const std::uint64_t begin = chosen[row] * length();
      file.read(begin, tokens.as<std::int64_t>().subspan(row * length(), length()));
      file.read(begin + 1, targets.as<std::int64_t>().subspan(row * length(), length()));
    }
    batch.units = static_cast<double>(targets.elements());
    batch.tensors.emplace("tokens", std::move(tokens));
    batch.tensors.emplace("targets", std::move(targets));
    return batch;
  }

  Context context_;
  TokenFile train_, held_out_, bytes_, words_;
};

}  // namespace

TESSERA_REGISTER(DataSource, text, TextSource, NoSettings,
                 "Windows of tokens over a text corpus, in a keyed random order");

}  // namespace tessera
