// From a text corpus to token files, once: the prepared data of (text, tokenizer, settings, vocabulary) lies
// under FOLDER/.tessera/KEY and is found again by every later run and process.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/fields.h"
#include "base/ids.h"
#include "data/tokenizer.h"

namespace tessera {

struct PrepareRequest {
  std::string path;  ///< folder with *.txt or one text file (data/corpus.h says what is held out)
  std::string tokenizer = "bytes";  ///< name in Registry<Tokenizer>
  Settings* settings = nullptr;     ///< of the tokenizer; null: its defaults
  std::int64_t vocab = 0;           ///< wanted size; 0: the tokenizer's own
  std::int64_t context = 1;         ///< T: both texts must give at least T + 1 tokens
};

struct Prepared {
  std::string folder;  ///< DataSource::Context::path and Tokenizer::Context::folder
  std::string tokenizer;
  std::int64_t vocab = 0;  ///< as trained; may be below the wanted size on a small corpus
  std::uint64_t train_tokens = 0, held_out_tokens = 0;
  std::uint64_t train_bytes = 0, held_out_bytes = 0;  ///< of the text
  std::uint64_t train_words = 0, held_out_words = 0;  ///< runs of bytes other than white space
  Digest text;                                        ///< of both texts
  bool found = false;                                 ///< lay there already, nothing was done
  double seconds = 0;                                 ///< this call took
};

/// Told what is going on now and how much of all is done, in [0, 1].
using PrepareProgress = std::function<void(const std::string& what, double done)>;

/// Finds or makes the prepared data. Processes that ask for the same data at the same time do the work once:
/// the others wait. A damaged folder is made afresh.
Result<Prepared> prepare_text(const PrepareRequest& request, const PrepareProgress& progress = {});

/// The tokenizer of a prepared folder, loaded.
Result<std::unique_ptr<Tokenizer>> load_tokenizer(const std::string& name, const std::string& folder);

/// Names of the files in a prepared folder.
namespace prepared_file {
inline constexpr const char* train = "train.tokens";
inline constexpr const char* held_out = "held_out.tokens";
inline constexpr const char* held_out_bytes = "held_out.bytes";  ///< entry i: bytes behind token i
inline constexpr const char* held_out_words = "held_out.words";  ///< entry i: words that begin in token i
}  // namespace prepared_file

}  // namespace tessera
