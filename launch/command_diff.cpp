// `tessera diff`: where two runs or checkpoints part: settings, the first differing round, then shard, tensor
// and element. Exit code 0: equal; 1: different.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/text.h"
#include "launch/catalogs.h"
#include "launch/commands.h"
#include "launch/config/parse.h"
#include "launch/config/write.h"
#include "launch/stored.h"

namespace tessera {
namespace {

constexpr int most_lines = 20;

/// Row and column of an element: "[3, 17]".
std::string index_text(const std::vector<std::int64_t>& shape, std::int64_t flat) {
  std::vector<std::int64_t> index(shape.size());
  for (std::size_t i = shape.size(); i-- > 0;) index[i] = flat % shape[i], flat /= shape[i];
  return shape_text(index);
}

/// How two tensors of one name differ; "" when they do not, bit for bit.
std::string tensor_difference(const HostTensor& a, const HostTensor& b) {
  if (a.dtype != b.dtype || a.shape != b.shape) {
    return detail::describe(safetensors_name(a.dtype), " ", shape_text(a.shape), " against ",
                            safetensors_name(b.dtype), " ", shape_text(b.shape));
  }
  const std::size_t width = size_of(a.dtype);
  std::int64_t first = -1, count = 0;
  double largest = 0;
  for (std::int64_t i = 0; i < a.elements(); ++i) {
    const std::size_t at = static_cast<std::size_t>(i) * width;
    if (std::memcmp(a.bytes().data() + at, b.bytes().data() + at, width) == 0) continue;
    if (first < 0) first = i;
    ++count;
    largest = std::max(largest, std::abs(element(a, i) - element(b, i)));
  }
  if (count == 0) return "";
  return detail::describe(count, " of ", a.elements(), " elements, first ", index_text(a.shape, first), ": ",
                          format_double(element(a, first)), " against ", format_double(element(b, first)),
                          "; largest difference ", largest);
}

class Printer {
 public:
  void line(const std::string& text) {
    if (++lines_ <= most_lines) std::printf("  %s\n", text.c_str());
  }
  int lines() const { return lines_; }
  void end() const {
    if (lines_ > most_lines) std::printf("  ... and %d more\n", lines_ - most_lines);
  }

 private:
  int lines_ = 0;
};

template <class Map>
std::vector<std::string> names_of_both(const Map& a, const Map& b) {
  std::vector<std::string> names;
  for (const auto& [name, value] : a) names.push_back(name);
  for (const auto& [name, value] : b) names.push_back(name);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

void compare_shard(const std::string& shard, const TensorMap& a, const TensorMap& b, Printer& out) {
  for (const std::string& name : names_of_both(a, b)) {
    const auto in_a = a.find(name), in_b = b.find(name);
    const std::string where = shard + ": " + name + ": ";
    if (in_a == a.end() || in_b == b.end()) {
      out.line(where + "only in the " + (in_b == b.end() ? "first" : "second"));
    } else if (const std::string difference = tensor_difference(in_a->second, in_b->second);
               !difference.empty()) {
      out.line(where + difference);
    }
  }
}

/// Number of differences.
int compare_stored(const Stored& a, const Stored& b) {
  std::printf("Tensors of %s and %s\n", a.path.c_str(), b.path.c_str());
  Printer out;
  // Two lone files may have any names; shards of checkpoints are matched by theirs.
  if (!a.version && !b.version) {
    compare_shard("file", a.shards.begin()->second, b.shards.begin()->second, out);
  } else {
    for (const std::string& shard : names_of_both(a.shards, b.shards)) {
      const auto in_a = a.shards.find(shard), in_b = b.shards.find(shard);
      if (in_a == a.shards.end() || in_b == b.shards.end()) {
        out.line(shard + ": only in the " + (in_b == b.shards.end() ? "first" : "second"));
      } else {
        compare_shard(shard, in_a->second, in_b->second, out);
      }
    }
  }
  out.end();
  if (out.lines() == 0) std::printf("  equal, bit for bit\n");
  return out.lines();
}

void compare_recipes(const std::string& a, const std::string& b) {
  const std::string file_a = a + "/recipe.toml", file_b = b + "/recipe.toml";
  if (!std::filesystem::exists(file_a) || !std::filesystem::exists(file_b)) return;
  const Catalogs catalogs = builtin_catalogs();
  const Result<Recipe> first = load_recipe(file_a, {}, catalogs), second = load_recipe(file_b, {}, catalogs);
  if (!first.ok() || !second.ok()) return;
  const std::vector<std::string> differences = recipe_differences(*first, *second);
  std::printf("%s\n", differences.empty() ? "Recipes are equal" : "Recipes differ");
  Printer out;
  for (const std::string& difference : differences) out.line(difference);
  out.end();
}

/// The first round whose state hashes differ, or that only one run has; nothing when all are equal.
Result<std::optional<std::int64_t>> first_differing_round(const DiffOptions& options) {
  TESSERA_ASSIGN(const std::vector<CommittedRound> a, committed_rounds(options.a));
  TESSERA_ASSIGN(const std::vector<CommittedRound> b, committed_rounds(options.b));
  const std::size_t both = std::min(a.size(), b.size());
  for (std::size_t i = 0; i < both; ++i) {
    if (a[i].round == b[i].round && a[i].state_hash == b[i].state_hash) continue;
    std::printf("First differing round: %lld\n  %s\n  %s\n", static_cast<long long>(a[i].round),
                a[i].state_hash.c_str(), b[i].state_hash.c_str());
    return std::optional(a[i].round);
  }
  if (a.size() == b.size()) {
    std::printf("All %zu rounds have equal state hashes\n", both);
    return std::optional<std::int64_t>();
  }
  std::printf("The first %zu rounds have equal state hashes; the %s run goes on to round %lld\n", both,
              a.size() > b.size() ? "first" : "second",
              static_cast<long long>((a.size() > b.size() ? a : b).back().round));
  return std::optional((a.size() > b.size() ? a : b)[both].round);
}

/// The earliest round from `from` on that both have a checkpoint of.
Result<std::optional<std::int64_t>> common_checkpoint(const DiffOptions& options, std::int64_t from) {
  TESSERA_ASSIGN(const std::vector<std::int64_t> a, stored_rounds(options.a));
  TESSERA_ASSIGN(const std::vector<std::int64_t> b, stored_rounds(options.b));
  for (const std::int64_t round : a) {
    if (round >= from && std::count(b.begin(), b.end(), round) > 0) return std::optional(round);
  }
  return std::optional<std::int64_t>();
}

Result<int> compare_paths(const DiffOptions& options, std::optional<std::int64_t> round) {
  TESSERA_ASSIGN(const Stored a, open_stored(options.a, round));
  TESSERA_ASSIGN(const Stored b, open_stored(options.b, round));
  return compare_stored(a, b);
}

Result<int> compare_runs(const DiffOptions& options) {
  compare_recipes(options.a, options.b);
  TESSERA_ASSIGN(const std::optional<std::int64_t> first, first_differing_round(options));
  if (!first) return 0;
  TESSERA_ASSIGN(const std::optional<std::int64_t> round, common_checkpoint(options, *first));
  if (round) {
    TESSERA_TRY(compare_paths(options, round));
  } else {
    std::printf("No round from there on has a checkpoint in both runs (checkpoint.every, checkpoint.keep)\n");
  }
  return 1;
}

}  // namespace

int command_diff(const DiffOptions& options) {
  for (const std::string& path : {options.a, options.b}) {
    if (!std::filesystem::exists(path)) return report(fail(ExitCode::usage, "there is no ", path));
  }
  const bool runs = is_run_directory(options.a) && is_run_directory(options.b);
  const Result<int> differences = runs ? compare_runs(options) : compare_paths(options, std::nullopt);
  if (!differences.ok()) return report(differences.error());
  return *differences == 0 ? 0 : 1;
}

}  // namespace tessera
