// What an experiment consists of, as data: sizes, data sets, arms with their tuning grids, and who meets whom
// on what. Read from recipes/NAME/{base,arms,claims}.toml; nothing here knows a paper. docs/reproduce.md
// explains the files.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace tessera {

/// Settings that a file says: dotted name and value as TOML, in the file's order.
using Said = std::vector<std::pair<std::string, std::string>>;

struct GridPoint {
  std::string name;
  Said settings;
};

struct ArmSpec {
  std::string name, label;
  Said settings;
  std::map<std::string, double>
      times;                          ///< factors on numbers that base, size or data say: rounds, sync.steps
  std::string grid;                   ///< tuned over these points; empty: not tuned
  std::vector<std::string> inherits;  ///< arms whose tuned points lie beneath this arm's settings, in order
  bool alone = false;                 ///< one participant: nothing is exchanged
  bool report = true;                 ///< false: only tuned, for others to inherit
  bool same_tokens = true;            ///< false: may see another number of tokens than the others
};

struct SizeSpec {
  std::string name, label;
  Said settings;
};

struct CorpusSpec {
  std::string name, label;
  std::string script, path;  ///< `script path` brings the text; both relative to the source tree
  Said settings;
};

/// Arms that meet on one size and data set.
struct CoverSpec {
  std::string name, size, corpus;
  std::vector<std::string> arms;    ///< in order; globs in the file are resolved
  std::vector<std::int64_t> seeds;  ///< that are reported; the profile's, if the file says none
  bool own_seeds = false;           ///< the file says them
};

/// A run repeated by another launch mode; its state hash must be that of the debug run.
struct RepeatSpec {
  std::string arm, size, corpus;
  std::int64_t seed = 0;
  bool wanted = false;
};

/// Which part of the experiment is run: full or quick.
struct ProfileSpec {
  std::vector<std::int64_t> seeds;
  std::int64_t tuning_seed = 0;
  std::string tuning_size, tuning_corpus;
  double tuning_budget = 0.5;       ///< factor on rounds
  std::int64_t tuning_batches = 0;  ///< held-out batches of a tuning run's final loss; 0: all
  std::map<std::string, std::vector<std::string>> points;  ///< by grid: only these; absent: all
  std::vector<CoverSpec> covers;
  RepeatSpec repeat;
};

/// Arms whose curves share a picture; drawn for every cover that has two of them.
struct PlotSpec {
  std::string name, title;
  std::vector<std::string> arms;
};

struct ExperimentSpec {
  std::string name, title, paper;
  std::string reference;           ///< arm that the table's differences are against
  double flops_per_second = 1e10;  ///< of one core, for estimates of time before there are results
  double limit_minutes = 30;       ///< a unit that takes longer is stopped and counts as failed
  std::string base_file, base_text;
  Said base;
  std::vector<SizeSpec> sizes;
  std::vector<CorpusSpec> corpora;
  std::map<std::string, std::vector<GridPoint>> grids;
  std::vector<ArmSpec> arms;
  std::map<std::string, ProfileSpec> profiles;
  std::vector<PlotSpec> plots;

  const ArmSpec* arm(const std::string& name) const;
  const SizeSpec* size(const std::string& name) const;
  const CorpusSpec* corpus(const std::string& name) const;
  /// The grid's points that a profile uses.
  std::vector<GridPoint> points(const std::string& grid, const ProfileSpec& profile) const;
};

/// Reads FOLDER/base.toml and FOLDER/arms.toml. One Error (usage) with a line per problem.
Result<ExperimentSpec> load_experiment(const std::string& folder);

}  // namespace tessera
