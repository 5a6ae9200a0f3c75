#include "data/prepare.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/text.h"
#include "comm/hash.h"
#include "data/corpus.h"
#include "data/settings_text.h"
#include "data/token_file.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
constexpr std::uint64_t key_version = 1;  // a change of what lies in a prepared folder makes a new key
constexpr std::size_t encode_piece = std::size_t{1} << 20;  // bytes of text between two progress reports

/// One preparation: the request, its text and where the result goes.
struct Job {
  const PrepareRequest& request;
  const PrepareProgress& progress;
  Corpus corpus;
  Digest text;
  fs::path store{};   // FOLDER/.tessera
  fs::path folder{};  // FOLDER/.tessera/KEY

  void report(const std::string& what, double done) const {
    if (progress) progress(what, done);
  }
};

Error storage_error(const std::string& what, const fs::path& path, const std::error_code& error) {
  return fail(ExitCode::storage, "cannot ", what, " ", path.string(), ": ", error.message());
}

/// Holds FOLDER/.tessera/KEY.lock while one process makes the folder; the kernel lets go of it when the
/// process dies.
class FolderLock {
 public:
  FolderLock() = default;
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  ~FolderLock() {
    if (fd_ >= 0) ::close(fd_);
  }
  Status take(const Job& job) {
    const std::string path = job.folder.string() + ".lock";
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0)
      return fail(
          ExitCode::storage, "cannot create ", path, ": ", std::strerror(errno),
          ". Prepared data is kept beside its text: make the folder writable or copy the text elsewhere");
    if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return {};
    job.report("waiting for another process that prepares the same data", 0);
    while (::flock(fd_, LOCK_EX) != 0)
      if (errno != EINTR) return fail(ExitCode::storage, "cannot lock ", path, ": ", std::strerror(errno));
    return {};
  }

 private:
  int fd_ = -1;
};

Result<std::unique_ptr<Tokenizer>> make_tokenizer(const PrepareRequest& request, const std::string& folder) {
  auto& registry = Registry<Tokenizer>::builtin();
  if (!registry.has(request.tokenizer)) return registry.unknown(request.tokenizer);
  const Tokenizer::Context context{folder, request.vocab};
  if (request.settings != nullptr) return registry.make(request.tokenizer, *request.settings, context);
  return registry.make(request.tokenizer, context);
}

Digest key_of_job(const PrepareRequest& request, const Digest& text) {
  std::string settings;
  if (request.settings != nullptr) {
    settings = settings_text(*request.settings);
  } else {
    settings = settings_text(*Registry<Tokenizer>::builtin().make_settings(request.tokenizer));
  }
  Hasher hasher;
  hasher.add(key_version).add(text);
  hasher.add(digest_of(std::string_view(request.tokenizer))).add(digest_of(std::string_view(settings)));
  return hasher.add(static_cast<std::uint64_t>(request.vocab)).digest();
}

/// End of the piece of text that begins at `begin`: whole lines, at least one.
std::size_t piece_end(std::string_view text, std::size_t begin) {
  if (text.size() - begin <= encode_piece) return text.size();
  const std::size_t line_end = text.find('\n', begin + encode_piece - 1);
  return line_end == std::string_view::npos ? text.size() : line_end + 1;
}

/// Calls each(ids, piece of text) for the text's tokens in order.
template <class Each>
void encode_in_pieces(const Tokenizer& tokenizer, std::string_view text, Each each) {
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = piece_end(text, begin);
    each(tokenizer.encode(text.substr(begin, end - begin)), end);
    begin = end;
  }
}

Status write_train(const Job& job, const Tokenizer& tokenizer, const fs::path& folder) {
  TokenFileWriter tokens(static_cast<std::uint64_t>(tokenizer.vocab()));
  const auto size = static_cast<double>(job.corpus.train.size());
  encode_in_pieces(tokenizer, job.corpus.train, [&](const std::vector<std::int32_t>& ids, std::size_t end) {
    tokens.append(ids);
    job.report("encoding the training text", 0.5 + 0.4 * static_cast<double>(end) / size);
  });
  return tokens.write((folder / prepared_file::train).string(), digest_of(std::string_view(job.corpus.train)),
                      tokenizer.digest());
}

/// The held-out tokens, and beside them the bytes and words behind each.
Status write_held_out(const Job& job, const Tokenizer& tokenizer, const fs::path& folder) {
  const std::string_view text = job.corpus.held_out;
  job.report("encoding the held-out text", 0.9);
  std::vector<std::int32_t> ids, bytes, words;
  bool inside = false;  // the byte before was part of a word
  std::size_t position = 0;
  encode_in_pieces(tokenizer, text, [&](const std::vector<std::int32_t>& piece, std::size_t) {
    for (const std::int32_t id : piece) {
      const std::string_view surface = tokenizer.surface(id);
      TESSERA_CHECK(text.substr(position, surface.size()) == surface, ": tokenizer ", job.request.tokenizer,
                    " does not give back the text at byte ", position);
      position += surface.size();
      std::int32_t begun = 0;
      for (const char c : surface) {
        begun += !inside && !is_space(c);
        inside = !is_space(c);
      }
      ids.push_back(id);
      bytes.push_back(static_cast<std::int32_t>(surface.size()));
      words.push_back(begun);
    }
  });
  TESSERA_CHECK_EQ(position, text.size());
  const Digest digest = digest_of(text);
  const auto write = [&](const char* name, const std::vector<std::int32_t>& values, std::uint64_t bound) {
    TokenFileWriter file(bound);
    file.append(values);
    return file.write((folder / name).string(), digest, tokenizer.digest());
  };
  const auto bound = [](const std::vector<std::int32_t>& values) {
    return values.empty() ? 1u
                          : static_cast<std::uint64_t>(*std::max_element(values.begin(), values.end())) + 1;
  };
  TESSERA_TRY(write(prepared_file::held_out, ids, static_cast<std::uint64_t>(tokenizer.vocab())));
  TESSERA_TRY(write(prepared_file::held_out_bytes, bytes, bound(bytes)));
  return write(prepared_file::held_out_words, words, bound(words));
}

/// What lies in the job's folder, if it is whole and made from this text.
Result<Prepared> examine(const Job& job) {
  TESSERA_ASSIGN(const auto tokenizer, make_tokenizer(job.request, job.folder.string()));
  TESSERA_TRY(tokenizer->load());
  Prepared prepared;
  prepared.folder = job.folder.string();
  prepared.tokenizer = job.request.tokenizer;
  prepared.vocab = tokenizer->vocab();
  std::vector<std::uint64_t> counts;
  for (const char* name : {prepared_file::train, prepared_file::held_out, prepared_file::held_out_bytes,
                           prepared_file::held_out_words}) {
    TESSERA_ASSIGN(const TokenFile file, TokenFile::open((job.folder / name).string()));
    TESSERA_TRY(file.verify());
    if (file.info().tokenizer != tokenizer->digest())
      return fail(ExitCode::storage, "token file ", file.path(), " was made with another tokenizer model");
    counts.push_back(file.count());
  }
  prepared.train_tokens = counts[0];
  prepared.held_out_tokens = counts[1];
  prepared.train_bytes = job.corpus.train.size();
  prepared.held_out_bytes = job.corpus.held_out.size();
  prepared.train_words = count_words(job.corpus.train);
  prepared.held_out_words = count_words(job.corpus.held_out);
  prepared.text = job.text;
  return prepared;
}

/// Removes what killed runs left; only the holder of the lock may.
Status remove_remains(const Job& job) {
  std::error_code error;
  const std::string prefix = job.folder.filename().string() + ".tmp-";
  for (const auto& entry : fs::directory_iterator(job.store, error))
    if (entry.path().filename().string().starts_with(prefix)) fs::remove_all(entry.path(), error);
  fs::remove_all(job.folder, error);
  if (error) return storage_error("remove", job.folder, error);
  return {};
}

Status make_folder(const Job& job) {
  TESSERA_TRY(remove_remains(job));
  const fs::path temporary = job.folder.string() + ".tmp-" + random_bits128().hex();
  std::error_code error;
  if (!fs::create_directory(temporary, error)) return storage_error("create", temporary, error);
  const auto fill = [&]() -> Status {
    TESSERA_ASSIGN(const auto tokenizer, make_tokenizer(job.request, temporary.string()));
    job.report("training the tokenizer '" + job.request.tokenizer + "'", 0.05);
    TESSERA_TRY(tokenizer->train(job.corpus.train));
    TESSERA_TRY(write_train(job, *tokenizer, temporary));
    TESSERA_TRY(write_held_out(job, *tokenizer, temporary));
    std::error_code failed;
    fs::rename(temporary, job.folder, failed);
    if (failed) return storage_error("rename to", job.folder, failed);
    return {};
  };
  Status status = fill();
  if (!status.ok()) fs::remove_all(temporary, error);
  return status;
}

Result<Prepared> find_or_make(const Job& job) {
  std::error_code error;
  if (fs::exists(job.folder, error)) {
    auto there = examine(job);
    if (there.ok()) {
      there->found = true;
      return there;
    }
    job.report("making it afresh: " + there.error().message, 0);
  }
  fs::create_directories(job.store, error);
  if (error)
    return fail(
        ExitCode::storage, "cannot create ", job.store.string(), ": ", error.message(),
        ". Prepared data is kept beside its text: make the folder writable or copy the text elsewhere");
  FolderLock lock;
  TESSERA_TRY(lock.take(job));
  if (fs::exists(job.folder, error)) {  // another process made it while this one waited
    auto there = examine(job);
    if (there.ok()) {
      there->found = true;
      return there;
    }
  }
  TESSERA_TRY(make_folder(job));
  return examine(job);
}

/// Before any work: neither text may be empty.
Status has_both_texts(const PrepareRequest& request, const Corpus& corpus) {
  if (!corpus.train.empty() && !corpus.held_out.empty()) return {};
  return fail(ExitCode::usage, "the corpus ", request.path, " has ", corpus.train.size(),
              " bytes of training text and ", corpus.held_out.size(),
              " of held-out text; it needs both: put text into train.txt and held_out.txt");
}

}  // namespace

Result<Prepared> prepare_text(const PrepareRequest& request, const PrepareProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  if (!Registry<Tokenizer>::builtin().has(request.tokenizer))
    return Registry<Tokenizer>::builtin().unknown(request.tokenizer);
  if (progress) progress("reading " + request.path, 0);
  TESSERA_ASSIGN(Corpus corpus, read_corpus(request.path));
  TESSERA_TRY(has_both_texts(request, corpus));
  Job job{request, progress, std::move(corpus), {}};
  job.text = Hasher()
                 .add(digest_of(std::string_view(job.corpus.train)))
                 .add(digest_of(std::string_view(job.corpus.held_out)))
                 .digest();
  job.store = fs::path(job.corpus.folder) / ".tessera";
  job.folder = job.store / key_of_job(request, job.text).hex();
  TESSERA_ASSIGN(Prepared prepared, find_or_make(job));
  TESSERA_TRY(enough_tokens(request.path, prepared.train_tokens, prepared.held_out_tokens, request.context));
  prepared.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  job.report(prepared.found ? "found " + prepared.folder : "prepared " + prepared.folder, 1);
  return prepared;
}

Result<std::unique_ptr<Tokenizer>> load_tokenizer(const std::string& name, const std::string& folder) {
  TESSERA_ASSIGN(auto tokenizer, make_tokenizer(PrepareRequest{.path = folder, .tokenizer = name}, folder));
  TESSERA_TRY(tokenizer->load());
  TESSERA_ASSIGN(const TokenFile tokens, TokenFile::open((fs::path(folder) / prepared_file::train).string()));
  if (tokens.info().tokenizer != tokenizer->digest())
    return fail(ExitCode::storage, "the tokenizer '", name, "' in ", folder, " is not the one that made ",
                tokens.path(), ": another name in the recipe, or a damaged model file");
  return tokenizer;
}

}  // namespace tessera
