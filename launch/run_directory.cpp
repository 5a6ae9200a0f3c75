#include "launch/run_directory.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/text.h"
#include "comm/hash.h"
#include "comm/storage/directory_lock.h"
#include "comm/storage/files.h"
#include "launch/assemble.h"
#include "launch/config/parse.h"
#include "launch/config/write.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// Children of a `tessera train` that was killed are gone after this.
const Duration time_to_leave = std::chrono::seconds(3);

/// Settings that change no bit of what was trained so far.
bool may_change_on_resume(const std::string& setting) {
  static const std::set<std::string> free = {"workers", "rounds",     "durability", "generate",
                                             "eval",    "checkpoint", "net",        "data.path"};
  const std::string group = setting.substr(0, setting.find('.'));
  return free.count(setting) > 0 || free.count(group) > 0;
}

/// Whether the rate was the same at every step that the run had before, as far as a thousand of them show.
bool has_same_rates(const Recipe& before, const Recipe& now) {
  const std::unique_ptr<Schedule> old_one = assemble_schedule(before), new_one = assemble_schedule(now);
  const std::int64_t steps = before.horizon(), stride = std::max<std::int64_t>(1, steps / 1000);
  for (std::int64_t step = 0; step < steps; step += stride) {
    if (old_one->factor(step) != new_one->factor(step)) return false;
  }
  return steps < 1 || old_one->factor(steps - 1) == new_one->factor(steps - 1);
}

std::string text_of(const Buffer& buffer) {
  return {reinterpret_cast<const char*>(buffer.bytes.data()), buffer.bytes.size()};
}

}  // namespace

std::string RunDirectory::shared_memory_prefix() {
  return "/dev/shm/tessera-" + std::to_string(getuid()) + "-";
}

std::string RunDirectory::shared_memory() const {
  const std::string path = fs::absolute(path_).lexically_normal().string();
  return shared_memory_prefix() + digest_of(path).hex().substr(0, 16);
}

bool RunDirectory::exists() const {
  return fs::exists(recipe());
}

Status RunDirectory::create(const Recipe& settings) const {
  if (exists()) {
    return fail(ExitCode::usage, path_,
                " holds a run already; add --resume to go on with it, or name another folder with --out");
  }
  std::error_code error;
  if (fs::exists(path_, error) && !fs::is_empty(path_, error)) {
    return fail(ExitCode::usage, path_, " is not empty and holds no run; name another folder with --out");
  }
  for (const std::string& folder : {path_, path_ + "/text", plots()}) {
    fs::create_directories(folder, error);
    if (error) return fail(ExitCode::storage, "cannot make the folder ", folder, ": ", error.message());
  }
  return atomic_write(recipe(), write_recipe(settings), Durability::machine);
}

Status RunDirectory::await_free() const {
  const SystemClock clock;
  const Instant give_up = clock.now() + time_to_leave;
  for (;;) {
    const auto lock = DirectoryLock::take(path_);
    if (lock.ok()) return {};
    if (lock.error().code != ExitCode::fenced || clock.now() >= give_up) return lock.error();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

Result<Recipe> RunDirectory::resume(const Recipe& settings, const Catalogs& catalogs) const {
  if (!exists()) return fail(ExitCode::usage, path_, " holds no run to resume (there is no ", recipe(), ")");
  TESSERA_ASSIGN(Recipe saved, load_recipe(recipe(), {}, catalogs));
  std::vector<std::string> refused;
  for (const std::string& difference : recipe_differences(saved, settings)) {
    const std::string setting = difference.substr(0, difference.find(':'));
    // A horizon that says where the schedule ended anyway, so that a longer run leaves it there.
    if (setting == "schedule.horizon" && has_same_rates(saved, settings)) continue;
    if (!may_change_on_resume(setting)) refused.push_back(difference);
  }
  if (settings.rounds < saved.rounds) {
    refused.push_back("rounds: " + std::to_string(saved.rounds) + " -> " + std::to_string(settings.rounds) +
                      " (a resumed run may be longer, not shorter)");
  }
  for (std::string& line : refused) {
    line = "cannot resume " + path_ + " with another recipe: " + line +
           "; leave it as it was, or start a new run with --out";
  }
  if (!refused.empty()) return fail(ExitCode::usage, join(refused, "\n"));
  TESSERA_TRY(atomic_write(recipe(), write_recipe(settings), Durability::machine));
  return saved;
}

Status RunDirectory::write_endpoints(const Endpoints& endpoints_now) const {
  const nlohmann::json json = {
      {"control", endpoints_now.control}, {"bulk", endpoints_now.bulk},
      {"metrics", endpoints_now.metrics}, {"shared_folder", endpoints_now.shared_folder},
      {"host", endpoints_now.host},       {"pid", endpoints_now.pid}};
  return atomic_write(endpoints(), json.dump(2) + "\n", Durability::process);
}

Result<Endpoints> RunDirectory::read_endpoints() const {
  TESSERA_ASSIGN(auto bytes, read_file(endpoints(), 1 << 16));
  const auto json = nlohmann::json::parse(text_of(bytes), nullptr, false);
  if (!json.is_object()) return fail(ExitCode::storage, endpoints(), " is not a JSON object");
  Endpoints result;
  try {
    result.control = json.value("control", "");
    result.bulk = json.value("bulk", "");
    result.metrics = json.value("metrics", "");
    result.shared_folder = json.value("shared_folder", "");
    result.host = json.value("host", "");
    result.pid = json.value("pid", std::int64_t{0});
  } catch (const nlohmann::json::exception& wrong) {
    return fail(ExitCode::storage, endpoints(), ": ", wrong.what());
  }
  return result;
}

Result<Endpoints> RunDirectory::await_endpoints(Duration at_most) const {
  const SystemClock clock;
  const Instant give_up = clock.now() + at_most;
  for (;;) {
    Result<Endpoints> found = read_endpoints();
    if (found.ok() && !found->control.empty()) return found;
    if (clock.now() >= give_up) {
      return fail(ExitCode::failed, "no coordinator wrote ", endpoints(), " within ",
                  format_duration(seconds(at_most)), "; is one running with this --out?");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace tessera
