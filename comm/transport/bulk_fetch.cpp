#include "comm/transport/bulk_fetch.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "comm/drop_reasons.h"

namespace tessera {
namespace {

constexpr std::uint64_t window_chunks =
    128;  // how far requests run ahead of the first gap: bounds work per arrival
constexpr int bad_chunks_allowed = 16;  // a peer that only lies is left before it costs much
constexpr Duration soon = std::chrono::milliseconds(20);

}  // namespace

void BulkFetcher::fetch(PeerId from, const BlobRef& ref, Instant now) {
  TESSERA_CHECK(find(ref.digest) == fetches_.end(), "blob ", ref.digest, " is being fetched already");
  fetches_.emplace_back(ref);
  const auto fetch = std::prev(fetches_.end());
  fetch->sources.push_back(from);
  if (ref.size > options_.max_blob_bytes) {
    end(fetch, fail(ExitCode::failed, "blob ", ref.digest, " of ", ref.size,
                    " bytes is larger than the limit of ", options_.max_blob_bytes, " bytes"));
    return;
  }
  restart(*fetch, now);
  finish_if_whole(fetch, now);
}

void BulkFetcher::join(PeerId from, const Digest& digest) {
  const auto fetch = find(digest);
  if (fetch == fetches_.end()) return;
  if (std::find(fetch->sources.begin(), fetch->sources.end(), from) == fetch->sources.end())
    fetch->sources.push_back(from);
}

BulkFetcher::Fetches::iterator BulkFetcher::find(const Digest& digest) {
  return std::find_if(fetches_.begin(), fetches_.end(),
                      [&](const Fetch& fetch) { return fetch.ref.digest == digest; });
}

void BulkFetcher::restart(Fetch& fetch, Instant now) {
  fetch.buffer = {};
  fetch.hasher.emplace();
  fetch.verified = fetch.next = 0;
  fetch.asked.clear(), fetch.again.clear(), fetch.arrived.clear();
  fetch.bad_chunks = 0;
  went_on(fetch, now);
}

void BulkFetcher::went_on(Fetch& fetch, Instant now) {
  const auto answers = answers_.find(fetch.sources.front());
  fetch.progress = now;
  fetch.retry_interval =
      std::max(options_.retry, answers == answers_.end() ? Duration{} : 2 * answers->second);
  fetch.retry_at = now + fetch.retry_interval;
}

void BulkFetcher::accept(PeerId from, const ChunkHeader& header, Bytes payload, Instant now) {
  const auto fetch = find(header.blob);
  if (fetch == fetches_.end() || fetch->sources.front() != from ||
      (!fetch->asked.contains(header.index) && !fetch->again.contains(header.index))) {
    counters_.drop(drop::unexpected);
    return;
  }
  if (!header.known) {
    next_source(
        fetch, fail(ExitCode::failed, "blob ", header.blob, ": peer ", from, " does not offer it (any more)"),
        now);
    return;
  }
  if (header.size != payload.size() || payload.size() != chunk_size(fetch->ref.size, header.index) ||
      checksum64(payload) != header.checksum) {
    damaged(fetch, header.index, now);
    return;
  }
  try {
    store(*fetch, header, payload, now);
  } catch (const std::bad_alloc&) {
    end(fetch, fail(ExitCode::failed, "no memory for blob ", header.blob, " of ", fetch->ref.size, " bytes"));
    return;
  }
  finish_if_whole(fetch, now);
}

void BulkFetcher::store(Fetch& fetch, const ChunkHeader& header, Bytes payload, Instant now) {
  if (fetch.buffer.keep == nullptr) fetch.buffer = pool_.take(fetch.ref.size);
  std::memcpy(fetch.buffer.bytes.data() + header.index * chunk_bytes, payload.data(), payload.size());
  counters_.add(&TransportCounters::bulk_bytes_in, payload.size());
  // One that was given up took at least as long as we waited.
  const auto asked = fetch.asked.find(header.index);
  const Duration took = asked == fetch.asked.end() ? fetch.retry_interval : now - asked->second;
  Duration& answers = answers_[fetch.sources.front()];
  answers = std::max(took, answers - answers / 8);
  fetch.asked.erase(header.index);
  fetch.again.erase(header.index);
  fetch.arrived.insert(header.index);
  went_on(fetch, now);
  verify_arrived(fetch);
}

void BulkFetcher::verify_arrived(Fetch& fetch) {
  while (!fetch.arrived.empty() && *fetch.arrived.begin() == fetch.verified) {
    const std::uint64_t index = fetch.verified++;
    fetch.hasher->add(
        Bytes(fetch.buffer.bytes).subspan(index * chunk_bytes, chunk_size(fetch.ref.size, index)));
    fetch.arrived.erase(fetch.arrived.begin());
  }
}

void BulkFetcher::damaged(Fetches::iterator fetch, std::uint64_t index, Instant now) {
  counters_.drop(drop::checksum);
  fetch->asked.erase(index);
  fetch->again.insert(index);
  if (++fetch->bad_chunks > bad_chunks_allowed)
    next_source(fetch,
                fail(ExitCode::failed, "blob ", fetch->ref.digest, ": peer ", fetch->sources.front(),
                     " keeps sending damaged chunks (chunk ", index, ")"),
                now);
}

bool BulkFetcher::finish_if_whole(Fetches::iterator fetch, Instant now) {
  if (fetch->verified < fetch->chunks()) return false;
  if (fetch->hasher->digest() == fetch->ref.digest) {
    end(fetch, Blob(fetch->buffer, fetch->ref.digest));
  } else {
    counters_.drop(drop::digest);
    next_source(fetch,
                fail(ExitCode::failed, "blob ", fetch->ref.digest, ": the bytes of peer ",
                     fetch->sources.front(), " have another digest"),
                now);
  }
  return true;
}

void BulkFetcher::next_source(Fetches::iterator fetch, Error error, Instant now) {
  if (fetch->sources.size() == 1) {
    end(fetch, std::move(error));
    return;
  }
  fetch->sources.erase(fetch->sources.begin());
  restart(*fetch, now);
}

void BulkFetcher::end(Fetches::iterator fetch, Result<Blob> blob) {
  done_.push_back({fetch->sources.front(), fetch->ref, std::move(blob)});
  fetches_.erase(fetch);
}

std::size_t BulkFetcher::outstanding(PeerId source) const {
  std::size_t count = 0;
  for (const Fetch& fetch : fetches_)
    if (fetch.sources.front() == source) count += fetch.asked.size();
  return count;
}

/// A slow link shows itself before much is on its way.
std::size_t BulkFetcher::credit_of(PeerId source) const {
  return answers_.contains(source) ? options_.credit : std::min<std::size_t>(4, options_.credit);
}

void BulkFetcher::ask_chunks(Fetch& fetch, Instant now, const Ask& ask) {
  fetch.blocked = false;
  std::size_t out = outstanding(fetch.sources.front());
  const std::size_t credit = credit_of(fetch.sources.front());
  while (out < credit) {
    const bool repeat = !fetch.again.empty();
    if (!repeat && (fetch.next >= fetch.chunks() || fetch.next >= fetch.verified + window_chunks)) return;
    const std::uint64_t index = repeat ? *fetch.again.begin() : fetch.next;
    if (!ask(fetch.sources.front(), {fetch.ref.digest, index})) {
      fetch.blocked = true;
      return;
    }
    repeat ? void(fetch.again.erase(index)) : void(++fetch.next);
    fetch.asked.emplace(index, now);
    ++out;
  }
}

void BulkFetcher::work(Instant now, const Ask& ask) {
  for (auto next = fetches_.begin(); next != fetches_.end();) {
    const auto fetch = next++;  // whatever follows may end it
    if (now - fetch->progress >= options_.give_up) {
      next_source(fetch,
                  fail(ExitCode::failed, "blob ", fetch->ref.digest, ": nothing came from peer ",
                       fetch->sources.front(), " for ", seconds(options_.give_up), " s"),
                  now);
      continue;
    }
    if (now >= fetch->retry_at) {
      for (const auto& [index, since] : std::exchange(fetch->asked, {})) fetch->again.insert(index);
      fetch->retry_interval *= 2;
      fetch->retry_at = now + fetch->retry_interval;
    }
    ask_chunks(*fetch, now, ask);
    // Waiting behind the peer's other blobs is not a lack of progress.
    if (fetch->asked.empty() && !fetch->blocked)
      fetch->progress = now, fetch->retry_at = now + fetch->retry_interval;
  }
}

std::optional<Instant> BulkFetcher::next_work(Instant now) const {
  std::optional<Instant> next;
  for (const Fetch& fetch : fetches_) {
    const Instant due =
        fetch.blocked ? now + soon : std::min(fetch.retry_at, fetch.progress + options_.give_up);
    if (!next || due < *next) next = due;
  }
  return next;
}

void BulkFetcher::ask_again() {
  for (Fetch& fetch : fetches_) {
    for (const auto& [index, since] : std::exchange(fetch.asked, {})) fetch.again.insert(index);
  }
}

}  // namespace tessera
