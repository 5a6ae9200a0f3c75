// The tokenizer "sentencepiece": subword units learnt from the corpus by the SentencePiece library (Kudo and
// Richardson, arXiv 1808.06226). Single-threaded and without sampling, so that the same text gives the same
// model.
//
// The library alone would lose some bytes: it replaces invalid UTF-8, reads its space mark U+2581 as a space
// and skips training lines with tabs. Such bytes never reach it; they become byte tokens, so
// every text survives the round trip.
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <exception>
#include <fstream>
#include <functional>
#include <iterator>
#include <unordered_map>

#include "base/text.h"
#include "base/utf8.h"
#include "comm/hash.h"
#include "data/tokenizer.h"

namespace tessera {
namespace {

constexpr std::int64_t own_vocab = 2048;            // where the recipe leaves the size open
constexpr std::int64_t least_vocab = 256 + 1 + 63;  // bytes, the unknown token and some letters
constexpr std::size_t longest_run = 4000;           // bytes; the library skips training sentences above 4,192
constexpr std::string_view space_mark = "\xe2\x96\x81";

struct SentencepieceSettings : Settings {
  std::string model = "unigram";
  double coverage = 0.9995;
  void fields(FieldVisitor& f) override {
    f.field({"model", "how subwords are learnt", one_of({"unigram", "bpe"})}, model);
    f.field(
        {"coverage", "share of the text's characters with a token of their own; the rest is spelt in bytes",
         between(0.9, 1)},
        coverage);
  }
};

/// A stretch of text that the library takes as one sentence, or (not plain) one that becomes byte tokens.
struct Run {
  std::string_view text;
  bool plain;
};

/// Length of the character at the front if the library gives it back unchanged, else 0.
std::size_t plain_length(std::string_view text) {
  if (text[0] == '\t' || text.starts_with(space_mark)) return 0;
  return utf8_length(text);
}

/// The run at the front of a text that is not empty. Plain runs end behind a line end, or before a space when
/// they grow too long.
Run first_run(std::string_view text) {
  std::size_t end = 0, last_space = 0;
  while (end < text.size()) {
    const std::size_t length = plain_length(text.substr(end));
    if (length == 0) break;
    if (end + length > longest_run) {
      end = last_space > 0 ? last_space : end;
      break;
    }
    if (text[end] == ' ') last_space = end;
    end += length;
    if (text[end - 1] == '\n') break;
  }
  if (end > 0) return {text.substr(0, end), true};
  return {text.substr(0, text.starts_with(space_mark) ? space_mark.size() : 1), false};
}

/// Hands the plain runs of a text to the trainer.
class PlainRuns final : public sentencepiece::SentenceIterator {
 public:
  explicit PlainRuns(std::string_view text) : rest_(text) { Next(); }
  bool done() const override { return done_; }
  void Next() override {
    while (!rest_.empty()) {
      const Run run = first_run(rest_);
      rest_.remove_prefix(run.text.size());
      if (!run.plain) continue;
      value_ = run.text;
      return;
    }
    done_ = true;
  }
  const std::string& value() const override { return value_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::string_view rest_;
  std::string value_;
  bool done_ = false;
};

class SentencepieceTokenizer final : public Tokenizer {
 public:
  SentencepieceTokenizer(const SentencepieceSettings& settings, const Context& context)
      : settings_(settings),
        path_(context.folder + "/sentencepiece.model"),
        wanted_(context.vocab == 0 ? own_vocab : context.vocab) {}

  Status train(std::string_view text) override {
    if (wanted_ < least_vocab)
      return fail(ExitCode::usage, "the tokenizer 'sentencepiece' needs a vocabulary of at least ",
                  least_vocab, ", not ", wanted_, " (model.vocab)");
    std::string model;
    const Status trained =
        guarded("learn " + std::to_string(wanted_) + " tokens from " +
                    format_bytes(static_cast<double>(text.size())) + " of text",
                [&] {
                  PlainRuns runs(text);
                  return sentencepiece::SentencePieceTrainer::Train(trainer_arguments(), &runs, &model);
                });
    if (!trained.ok())
      return fail(
          trained.error().code, trained.error().message,
          " (another vocabulary size, more text, a lower 'coverage' or the tokenizer 'bytes' may do)");
    std::ofstream file(path_, std::ios::binary);
    file.write(model.data(), static_cast<std::streamsize>(model.size()));
    if (!file.flush()) return fail(ExitCode::storage, "cannot write ", path_);
    return load();
  }

  Status load() override {
    std::ifstream file(path_, std::ios::binary);
    if (!file) return fail(ExitCode::storage, "there is no tokenizer model ", path_);
    const std::string model{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    TESSERA_TRY(guarded("read " + path_, [&] { return library_.LoadFromSerializedProto(model); }));
    digest_ = Hasher().add(std::string_view("tokenizer sentencepiece 1")).add(digest_of(model)).digest();
    return read_surfaces();
  }

  std::int64_t vocab() const override { return static_cast<std::int64_t>(surfaces_.size()); }
  Digest digest() const override { return digest_; }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    std::vector<std::int32_t> ids;
    std::vector<int> run_ids;
    while (!text.empty()) {
      const Run run = first_run(text);
      text.remove_prefix(run.text.size());
      if (run.plain) {
        const auto status = library_.Encode(run.text, &run_ids);
        TESSERA_CHECK(status.ok(), ": ", status.ToString());
        ids.insert(ids.end(), run_ids.begin(), run_ids.end());
      } else {
        for (const char c : run.text) ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
      }
    }
    return ids;
  }

  std::string_view surface(std::int32_t id) const override {
    TESSERA_CHECK(id >= 0 && id < vocab(), ": token ", id, ", vocab ", vocab());
    return surfaces_[static_cast<std::size_t>(id)];
  }

 private:
  std::unordered_map<std::string, std::string> trainer_arguments() const {
    return {{"model_type", settings_.model},
            {"vocab_size", std::to_string(wanted_)},
            {"hard_vocab_limit", "false"},
            {"character_coverage", format_double(settings_.coverage)},
            {"byte_fallback", "true"},
            {"normalization_rule_name", "identity"},
            {"remove_extra_whitespaces", "false"},
            {"add_dummy_prefix", "false"},
            {"unk_id", "0"},
            {"bos_id", "-1"},
            {"eos_id", "-1"},
            {"pad_id", "-1"},
            {"num_threads", "1"},
            {"input_sentence_size", "0"},
            {"shuffle_input_sentence", "false"},
            {"minloglevel", "2"}};
  }

  /// Runs a call into the library; its failures and exceptions become one sentence.
  static Status guarded(const std::string& doing, const std::function<sentencepiece::util::Status()>& call) {
    try {
      const auto status = call();
      if (status.ok()) return {};
      return fail(ExitCode::failed, "SentencePiece could not ", doing, ": ", status.ToString());
    } catch (const std::exception& error) {
      return fail(ExitCode::failed, "SentencePiece could not ", doing, ": ", error.what());
    }
  }

  /// What each token stands for: a byte, nothing (the unknown token), or its piece with spaces for space
  /// marks.
  Status read_surfaces() {
    surfaces_.clear();
    byte_ids_.assign(256, -1);
    for (int id = 0; id < library_.GetPieceSize(); ++id) {
      const std::string& piece = library_.IdToPiece(id);
      if (library_.IsByte(id)) {  // "<0x41>"
        const auto byte = static_cast<std::size_t>(std::stoi(piece.substr(3, 2), nullptr, 16));
        byte_ids_[byte] = id;
        surfaces_.emplace_back(1, static_cast<char>(byte));
      } else {
        surfaces_.push_back(library_.IsUnknown(id) || library_.IsControl(id) ? "" : with_spaces(piece));
      }
    }
    for (const std::int32_t id : byte_ids_)
      if (id < 0)
        return fail(ExitCode::storage, "the tokenizer model ", path_,
                    " lacks byte tokens: it was not made by Tessera");
    return {};
  }

  static std::string with_spaces(std::string piece) {
    for (std::size_t at; (at = piece.find(space_mark)) != std::string::npos;)
      piece.replace(at, space_mark.size(), " ");
    return piece;
  }

  SentencepieceSettings settings_;
  std::string path_;
  std::int64_t wanted_;
  Digest digest_;
  sentencepiece::SentencePieceProcessor library_;
  std::vector<std::string> surfaces_;   // by id
  std::vector<std::int32_t> byte_ids_;  // by byte
};

}  // namespace

TESSERA_REGISTER(Tokenizer, sentencepiece, SentencepieceTokenizer, SentencepieceSettings,
                 "Subwords learnt from the corpus (unigram or BPE), bytes for the rest");

}  // namespace tessera
