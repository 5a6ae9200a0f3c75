#include "data/corpus.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "base/text.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

Result<std::string> read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(ExitCode::usage, "cannot read the text file ", path.string());
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) return fail(ExitCode::storage, "reading ", path.string(), " failed half-way");
  return text;
}

/// Moves the last tenth of the training text, from a line start on, to the held-out text.
void hold_out_last_tenth(Corpus& corpus) {
  const std::size_t around = corpus.train.size() - corpus.train.size() / 10;
  const std::size_t line_end = corpus.train.find('\n', around);
  const std::size_t cut =
      line_end == std::string::npos || line_end + 1 == corpus.train.size() ? around : line_end + 1;
  corpus.held_out = corpus.train.substr(cut);
  corpus.train.resize(cut);
}

Result<std::vector<fs::path>> text_files(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (entry->path().extension() == ".txt" && entry->is_regular_file(error)) files.push_back(entry->path());
  if (error)
    return fail(ExitCode::usage, "cannot list the corpus folder ", folder.string(), ": ", error.message());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

Result<Corpus> read_corpus(const std::string& path) {
  const fs::path place(path);
  std::error_code error;
  if (path.empty() || !fs::exists(place, error))
    return fail(ExitCode::usage, "there is no corpus at '", path,
                "' (data.path): give a folder with train.txt and held_out.txt, or one text file");
  Corpus corpus;
  if (fs::is_regular_file(place, error)) {
    corpus.folder = place.has_parent_path() ? place.parent_path().string() : ".";
    TESSERA_ASSIGN(corpus.train, read_text(place));
    hold_out_last_tenth(corpus);
    return corpus;
  }
  corpus.folder = path;
  TESSERA_ASSIGN(const std::vector<fs::path> files, text_files(place));
  if (files.empty())
    return fail(ExitCode::usage, "the corpus folder ", path,
                " holds no .txt file; it should hold train.txt and held_out.txt");
  bool has_held_out = false;
  for (const fs::path& file : files) {
    TESSERA_ASSIGN(std::string text, read_text(file));
    const bool held_out = file.filename() == "held_out.txt";
    has_held_out = has_held_out || held_out;
    (held_out ? corpus.held_out : corpus.train) += text;
  }
  if (!has_held_out) hold_out_last_tenth(corpus);
  return corpus;
}

std::uint64_t count_words(std::string_view text) {
  std::uint64_t words = 0;
  bool inside = false;
  for (const char c : text) {
    words += !inside && !is_space(c);
    inside = !is_space(c);
  }
  return words;
}

Status enough_tokens(const std::string& path, std::uint64_t train, std::uint64_t held_out,
                     std::int64_t context) {
  const std::uint64_t need = static_cast<std::uint64_t>(context) + 1;
  std::string missing;
  if (train < need) missing = "training text gives " + std::to_string(train) + " tokens";
  if (held_out < need)
    missing += std::string(missing.empty() ? "" : " and its ") + "held-out text gives " +
               std::to_string(held_out) + " tokens";
  if (missing.empty()) return {};
  return fail(ExitCode::usage, "the corpus ", path, " is too small: its ", missing, ", but one window needs ",
              need, " (model.context ", context,
              " + 1). Add text (train.txt, held_out.txt) or lower model.context");
}

}  // namespace tessera
