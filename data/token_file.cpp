#include "data/token_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/descriptor.h"
#include "comm/hash.h"

namespace tessera {
namespace {

constexpr char magic[8] = {'T', 'E', 'S', 'S', 'T', 'O', 'K', '\n'};
constexpr std::uint32_t format_version = 1;
constexpr std::size_t checked_bytes = 120, header_bytes = 128;
using Header = std::array<std::byte, header_bytes>;

std::uint64_t width_for(std::uint64_t vocab) {
  return vocab <= 65536 ? 2 : 4;
}

template <class T>
void put(Header& header, std::size_t at, T value) {
  std::memcpy(header.data() + at, &value, sizeof value);
}
template <class T>
T get(const std::byte* header, std::size_t at) {
  T value;
  std::memcpy(&value, header + at, sizeof value);
  return value;
}
void put_digest(Header& header, std::size_t at, const Digest& digest) {
  put(header, at, digest.high);
  put(header, at + 8, digest.low);
}
Digest get_digest(const std::byte* header, std::size_t at) {
  return {get<std::uint64_t>(header, at), get<std::uint64_t>(header, at + 8)};
}

Header make_header(const TokenFileInfo& info) {
  Header header{};
  std::memcpy(header.data(), magic, sizeof magic);
  put(header, 8, format_version);
  put(header, 12, static_cast<std::uint32_t>(width_for(info.vocab)));
  put(header, 16, info.vocab);
  put(header, 24, info.count);
  put_digest(header, 32, info.text);
  put_digest(header, 48, info.tokenizer);
  put_digest(header, 64, info.content);
  put(header, checked_bytes, checksum64(Bytes(header.data(), checked_bytes)));
  return header;
}

Error broken(const std::string& path, const std::string& what) {
  return fail(ExitCode::storage, "token file ", path, " ", what,
              ". Remove the folder it lies in; the next run prepares it afresh");
}
Error system_error(const std::string& doing, const std::string& path) {
  return fail(ExitCode::storage, "cannot ", doing, " ", path, ": ", std::strerror(errno));
}

Status write_all(int fd, Bytes bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return system_error("write", path);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

Status check_header(const std::byte* header, std::uint64_t file_size, const std::string& path) {
  if (std::memcmp(header, magic, sizeof magic) != 0)
    return broken(path, "does not begin like one (wrong magic bytes)");
  if (get<std::uint64_t>(header, checked_bytes) != checksum64(Bytes(header, checked_bytes)))
    return broken(path, "has a damaged header (checksum mismatch)");
  if (const auto version = get<std::uint32_t>(header, 8); version != format_version)
    return broken(path, "has format version " + std::to_string(version) + ", this build reads " +
                            std::to_string(format_version));
  const auto width = get<std::uint32_t>(header, 12);
  const auto vocab = get<std::uint64_t>(header, 16), count = get<std::uint64_t>(header, 24);
  if (width != width_for(vocab))
    return broken(path, "holds " + std::to_string(width) +
                            "-byte tokens, which does not fit its vocabulary of " + std::to_string(vocab));
  if (count > (file_size - header_bytes) / width || file_size != header_bytes + count * width)
    return broken(path, "is " + std::to_string(file_size) + " bytes long, but its header promises " +
                            std::to_string(count) + " tokens of " + std::to_string(width) + " bytes");
  return {};
}

}  // namespace

Result<TokenFile> TokenFile::open(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.ok()) return system_error("open token file", path);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return system_error("examine", path);
  const auto size = static_cast<std::uint64_t>(status.st_size);
  if (size < header_bytes)
    return broken(path, "is cut short: " + std::to_string(size) + " bytes, less than its header");
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) return system_error("map", path);
  TokenFile tokens;
  tokens.path_ = path;
  tokens.mapping_ = std::shared_ptr<const void>(
      memory, [size](const void* mapped) { ::munmap(const_cast<void*>(mapped), size); });
  const auto* header = static_cast<const std::byte*>(memory);
  TESSERA_TRY(check_header(header, size, path));
  tokens.width_ = get<std::uint32_t>(header, 12);
  tokens.info_ = {get<std::uint64_t>(header, 16), get<std::uint64_t>(header, 24), get_digest(header, 32),
                  get_digest(header, 48), get_digest(header, 64)};
  tokens.tokens_ = header + header_bytes;
  return tokens;
}

Status TokenFile::verify() const {
  if (digest_of(Bytes(tokens_, info_.count * width_)) != info_.content)
    return broken(path_, "has damaged tokens (digest mismatch)");
  return {};
}

void TokenFile::read(std::uint64_t first, std::span<std::int64_t> out) const {
  TESSERA_CHECK_LE(first + out.size(), info_.count);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = (*this)[first + i];
}

std::uint64_t TokenFile::sum(std::uint64_t first, std::uint64_t count) const {
  TESSERA_CHECK_LE(first + count, info_.count);
  std::uint64_t total = 0;
  for (std::uint64_t i = first; i < first + count; ++i) total += static_cast<std::uint64_t>((*this)[i]);
  return total;
}

TokenFileWriter::TokenFileWriter(std::uint64_t vocab) : vocab_(vocab), width_(width_for(vocab)) {}

void TokenFileWriter::append(std::span<const std::int32_t> tokens) {
  std::size_t at = bytes_.size();
  bytes_.resize(at + tokens.size() * width_);
  for (const std::int32_t token : tokens) {
    TESSERA_CHECK(token >= 0 && static_cast<std::uint64_t>(token) < vocab_, ": token ", token, ", vocab ",
                  vocab_);
    const auto value = static_cast<std::uint32_t>(token);
    std::memcpy(bytes_.data() + at, &value, width_);  // little endian: the low bytes come first
    at += width_;
  }
}

Status TokenFileWriter::write(const std::string& path, const Digest& text, const Digest& tokenizer) const {
  const Header header = make_header({vocab_, count(), text, tokenizer, digest_of(Bytes(bytes_))});
  const std::string temporary = path + ".tmp-" + random_bits128().hex();
  const Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file.ok()) return system_error("create", temporary);
  Status status = write_all(file.get(), header, temporary);
  if (status.ok()) status = write_all(file.get(), bytes_, temporary);
  if (status.ok() && ::fsync(file.get()) != 0) status = system_error("flush", temporary);
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) status = system_error("rename to", path);
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

}  // namespace tessera
