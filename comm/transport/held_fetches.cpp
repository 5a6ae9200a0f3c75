#include "comm/transport/held_fetches.h"

#include <algorithm>
#include <utility>

#include "base/finite.h"
#include "comm/drop_reasons.h"

namespace tessera {

bool HeldFetches::fetch(PeerId from, const BlobRef& ref) {
  if (ref.path.empty() || shared_ == nullptr || ref.size > options_.max_blob_bytes) return false;
  if (!shared_->is_path_of(ref)) {
    counters_.drop(drop::shared_path);
    return false;
  }
  Result<Buffer> file = shared_->hold(ref);
  if (!file.ok()) return false;
  fetches_.push_back({.ref = ref, .from = {from}, .file = *std::move(file)});
  return true;
}

bool HeldFetches::join(PeerId from, const Digest& digest) {
  const auto fetch =
      std::ranges::find_if(fetches_, [&](const Fetch& candidate) { return candidate.ref.digest == digest; });
  if (fetch == fetches_.end()) return false;
  if (std::ranges::count(fetch->from, from) == 0) fetch->from.push_back(from);
  return true;
}

HeldFetches::Verified HeldFetches::verify() {
  std::vector<Fetch> fetches = std::exchange(fetches_, {});
  // Both read the same bytes at the same time: what one has fetched into the cache, the other finds there.
  const std::size_t looks = options_.looks_for_non_finite ? 2 : 1;
  parallel_for(fetches.size() * looks, options_.threads, [&](std::size_t i) {
    Fetch& fetch = fetches[i / looks];
    if (i % looks == 0) {
      fetch.is_good = digest_of(Bytes(fetch.file.bytes)) == fetch.ref.digest;
    } else {
      fetch.is_finite = all_finite(fetch.file.bytes);
    }
  });
  Verified verified;
  for (Fetch& fetch : fetches) {
    if (!fetch.is_good) {
      counters_.drop(drop::digest);
      verified.refused.push_back({fetch.ref, std::move(fetch.from)});
      continue;
    }
    counters_.add(&TransportCounters::shared_bytes_in, fetch.ref.size);
    verified.arrived.push_back(
        {fetch.from.front(), fetch.ref, Blob(std::move(fetch.file), fetch.ref.digest), fetch.is_finite});
  }
  return verified;
}

}  // namespace tessera
