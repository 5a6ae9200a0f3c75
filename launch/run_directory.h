// The folder that a run leaves behind: where things lie in it, and the rules for starting and resuming in it
// (DESIGN "Run directory").
#pragma once
#include <cstdint>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "launch/config/recipe.h"

namespace tessera {

/// Where the processes of a run find each other: endpoints.json.
struct Endpoints {
  std::string control, bulk;  ///< "tcp://127.0.0.1:4711"
  std::string metrics;        ///< "http://127.0.0.1:9090/metrics"; empty: none
  std::string shared_folder;  ///< for bulk data on this host; empty: none
  std::string host;
  std::int64_t pid = 0;
};

class RunDirectory {
 public:
  explicit RunDirectory(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  std::string recipe() const { return path_ + "/recipe.toml"; }
  std::string metrics() const { return path_ + "/metrics.jsonl"; }
  std::string endpoints() const { return path_ + "/endpoints.json"; }
  std::string checkpoints() const { return path_ + "/checkpoints"; }
  std::string slots() const { return path_ + "/slots"; }
  std::string plots() const { return path_ + "/plots"; }
  /// Folder of shared memory on this host, one for each run directory so that a restarted coordinator finds
  /// it again. Those of all runs of this user begin with shared_memory_prefix().
  std::string shared_memory() const;
  static std::string shared_memory_prefix();
  /// Text log of a role: "coordinator.log", "worker-2.log".
  std::string text_log(const std::string& role) const { return path_ + "/text/" + role + ".log"; }

  bool exists() const;
  /// A new run: makes the folder and writes the resolved recipe. Error (usage) when there is a run in it
  /// already.
  Status create(const Recipe& recipe) const;
  /// A run to go on with: `recipe` may differ from the saved one only in what a resume may change (rounds may
  /// grow, where things run); the saved recipe is then replaced. Gives what was saved. Error (usage) lists
  /// what differs.
  Result<Recipe> resume(const Recipe& recipe, const Catalogs& catalogs) const;
  /// Error (fenced), with the holder's pid, when a coordinator still holds the run after a few seconds:
  /// whoever is about to resume must leave its files alone.
  Status await_free() const;

  Status write_endpoints(const Endpoints& endpoints) const;
  Result<Endpoints> read_endpoints() const;
  /// Waits until a coordinator has said where it listens.
  Result<Endpoints> await_endpoints(Duration at_most) const;

 private:
  std::string path_;
};

}  // namespace tessera
