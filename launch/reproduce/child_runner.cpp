#include "launch/reproduce/child_runner.h"

#include <signal.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <thread>

#include "base/text.h"
#include "comm/hash.h"
#include "comm/storage/files.h"
#include "launch/config/outline.h"
#include "launch/reproduce/measure.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

/// xxh3-128 over the names and bytes of a corpus's texts; "" when there are none.
std::string hash_of_corpus(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator(folder, missing)) {
    if (entry.path().extension() == ".txt") files.push_back(entry.path().string());
  }
  if (files.empty()) return "";
  std::sort(files.begin(), files.end());
  Hasher hasher;
  for (const std::string& file : files)
    hasher.add(fs::path(file).filename().string() + "\n").add(contents(file));
  return hasher.digest().hex();
}

std::string utc_now() {
  char text[32];
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace

ChildRunner::ChildRunner(const ExperimentSpec& spec, const ProfileSpec& profile, ChildRunnerOptions options)
    : spec_(spec), profile_(profile), options_(std::move(options)) {}

Status ChildRunner::prepare(const CorpusSpec& corpus) {
  const std::string folder = options_.root + "/" + corpus.path;
  TESSERA_TRY(make_folder(options_.work));
  if (hash_of_corpus(folder).empty() && !corpus.script.empty()) {
    const std::string log = options_.work + "/" + corpus.name + ".log",
                      script = options_.root + "/" + corpus.script;
    // The script may need a shell of its own with pipes and traps; it says on its log what it misses.
    TESSERA_ASSIGN(const pid_t pid, start_process({{"/bin/sh", script, folder}, {}, log}));
    for (;;) {
      const std::optional<ProcessEnd> end = reap_process();
      if (end && end->pid == pid) break;
      if (end) ended_early_.push_back(*end);
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    if (hash_of_corpus(folder).empty())
      return fail(ExitCode::failed, corpus.script, " brought no text into ", folder, ": ", contents(log));
  }
  corpus_hashes_[corpus.name] = hash_of_corpus(folder);
  if (corpus_hashes_[corpus.name].empty())
    return fail(ExitCode::usage, "there are no *.txt files in ", folder);
  return {};
}

Result<pid_t> ChildRunner::start_training(const UnitJob& job) const {
  const std::string& name = job.unit.name;
  std::vector<std::string> arguments{options_.program, job.unit.processes ? "train" : "debug",
                                     spec_.base_file};
  std::vector<std::string> overrides = job.composed.overrides;
  overrides.push_back("data.path=" + toml_text(options_.root + "/" + spec_.corpus(job.unit.corpus)->path));
  if (job.unit.processes) overrides.push_back("workers=2");
  for (const std::string& text : overrides) arguments.insert(arguments.end(), {"--set", text});
  arguments.insert(arguments.end(), {"--out", run_folder(name), "--quiet"});
  return start_process({arguments, {{"OMP_NUM_THREADS", "1"}}, said_by(name)});
}

Result<pid_t> ChildRunner::start_evaluation(const UnitJob& job) const {
  const std::string& name = job.unit.name;
  const std::int64_t batches = job.unit.tuning() ? profile_.tuning_batches : 0;
  return start_process({{options_.program, "eval", run_folder(name), "--json", "--set",
                         "eval.batches=" + std::to_string(batches)},
                        {{"OMP_NUM_THREADS", "1"}},
                        score_of(name)});
}

Status ChildRunner::start(const UnitJob& job) {
  clean(job.unit
            .name);  // what an interrupted run left: units are short, so they begin anew and are timed whole
  TESSERA_ASSIGN(const pid_t pid, start_training(job));
  running_.emplace(pid, Running{job, clock_.now(), std::nullopt});
  return {};
}

std::optional<UnitEnd> ChildRunner::poll() {
  std::optional<ProcessEnd> end;
  if (ended_early_.empty()) {
    end = reap_process();
  } else {
    end = ended_early_.back();
    ended_early_.pop_back();
  }
  const auto found = end ? running_.find(end->pid) : running_.end();
  if (found == running_.end()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return over_time();
  }
  Running unit = std::move(found->second);
  running_.erase(found);
  const std::string name = unit.job.unit.name;
  std::optional<Result<UnitResult>> result = go_on(unit, *end);
  if (!result) {
    const Result<pid_t> pid = start_evaluation(unit.job);
    if (pid.ok()) {
      running_.emplace(*pid, std::move(unit));
      return std::nullopt;
    }
    result = pid.error();
  }
  if (result->ok()) clean(name);
  return UnitEnd{name, *result};
}

std::optional<Result<UnitResult>> ChildRunner::go_on(Running& unit, const ProcessEnd& end) {
  if (end.signal != 0 || end.exit_code != 0) return trouble(unit, end.describe());
  if (unit.trained) return finish(unit);
  const std::string& name = unit.job.unit.name;
  Result<UnitResult> trained =
      measure_run(unit.job, spec_.arm(unit.job.unit.arm)->alone, run_folder(name) + "/metrics.jsonl");
  if (!trained.ok()) return trouble(unit, trained.error().message);
  trained->wall_seconds = seconds(clock_.now() - unit.begin);
  trained->cpu_seconds = end.cpu_seconds;
  trained->peak_bytes = end.peak_bytes;
  unit.trained = std::move(*trained);
  return std::nullopt;
}

Result<UnitResult> ChildRunner::finish(Running& unit) const {
  TESSERA_ASSIGN(const FinalScore score, parse_final_score(contents(score_of(unit.job.unit.name))));
  UnitResult result = std::move(*unit.trained);
  result.final_loss = score.loss;
  result.final_tokens = score.tokens;
  result.bits_per_byte = score.bits_per_byte;
  result.commit = options_.commit;
  result.build = options_.build;
  result.machine = options_.machine;
  result.date = utc_now();
  result.corpus_hash = corpus_hashes_.at(unit.job.unit.corpus);
  return result;
}

/// The first lines that the children said are nearly always the reason.
Error ChildRunner::trouble(const Running& unit, const std::string& what) const {
  const std::string& name = unit.job.unit.name;
  std::string said = contents(unit.trained ? score_of(name) : said_by(name)).substr(0, 1000);
  while (!said.empty() && said.back() == '\n') said.pop_back();
  return fail(ExitCode::failed, what, said.empty() ? "" : ": ", said, " (", said_by(name), ")");
}

std::optional<UnitEnd> ChildRunner::over_time() {
  for (auto& [pid, unit] : running_) {
    if (seconds(clock_.now() - unit.begin) < 60 * spec_.limit_minutes) continue;
    kill_process(pid, SIGKILL);
    const UnitEnd end{unit.job.unit.name,
                      trouble(unit, "stopped after limit_minutes = " + format_double(spec_.limit_minutes))};
    running_.erase(pid);
    return end;
  }
  return std::nullopt;
}

void ChildRunner::stop() {
  for (const auto& [pid, unit] : running_) kill_process(pid, SIGKILL);
  std::set<pid_t> alive;  // what still lives may still write
  for (const auto& [pid, unit] : running_) alive.insert(pid);
  for (const ProcessEnd& end : ended_early_) alive.erase(end.pid);
  while (!alive.empty()) {
    const std::optional<ProcessEnd> end = reap_process();
    if (end) alive.erase(end->pid);
    if (!end) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  for (const auto& [pid, unit] : running_) clean(unit.job.unit.name);
  running_.clear();
}

void ChildRunner::clean(const std::string& unit) const {
  std::error_code ignored;
  fs::remove_all(run_folder(unit), ignored);
  fs::remove(said_by(unit), ignored);
  fs::remove(score_of(unit), ignored);
}

}  // namespace tessera
