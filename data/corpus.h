// A text corpus on disk: which files train, which are held out, and whether there is enough of both.
//
// A folder: held_out.txt is held out, all other *.txt (in order of their names) train. Without held_out.txt,
// and for a single text file, the last tenth of the text is held out, cut at a line start.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace tessera {

struct Corpus {
  std::string folder;    ///< where it lies; prepared data goes to folder/.tessera
  std::string train;     ///< text
  std::string held_out;  ///< text
};

/// Reads a folder with *.txt files, or one text file. An Error names the path and what it should hold.
Result<Corpus> read_corpus(const std::string& path);

/// Maximal runs of bytes that are not ASCII white space.
std::uint64_t count_words(std::string_view text);
inline bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

/// Training and evaluation need one window of `context` tokens and its next token each: a sentence with the
/// numbers and the way out where they are missing.
Status enough_tokens(const std::string& path, std::uint64_t train, std::uint64_t held_out,
                     std::int64_t context);

}  // namespace tessera
