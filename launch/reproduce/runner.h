// Who runs units: the harness decides which and when, a runner does it. Real one: child_runner.h; tests bring
// one that trains nothing.
#pragma once
#include <optional>
#include <string>

#include "base/error.h"
#include "launch/reproduce/resolve.h"
#include "launch/reproduce/unit_result.h"

namespace tessera {

struct UnitJob {
  Unit unit;
  Composed composed;
  ResolvedUnit resolved;
};

struct UnitEnd {
  std::string unit;
  Result<UnitResult> result;  ///< an Error says why there is none
};

class UnitRunner {
 public:
  virtual ~UnitRunner() = default;
  /// Brings the text of a corpus, if it is not there.
  virtual Status prepare(const CorpusSpec& corpus) = 0;
  virtual Status start(const UnitJob& job) = 0;
  /// A unit that has ended since the last call; waits a little when there is none.
  virtual std::optional<UnitEnd> poll() = 0;
  /// Ends all running units; they leave nothing behind.
  virtual void stop() = 0;
};

}  // namespace tessera
