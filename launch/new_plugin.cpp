#include "launch/new_plugin.h"

#include <cctype>
#include <filesystem>
#include <fstream>

#include "base/text.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

/// "sign_sgd" -> "SignSgd"
std::string class_name(const std::string& name) {
  std::string result;
  for (const std::string& word : split(name, '_')) {
    if (word.empty()) continue;
    result += static_cast<char>(std::toupper(static_cast<unsigned char>(word[0])));
    result += word.substr(1);
  }
  return result;
}

bool is_plugin_name(const std::string& name) {
  return !name.empty() && name.size() <= 40 && std::islower(static_cast<unsigned char>(name[0])) != 0 &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
}

std::string filled(std::string text, const std::string& name) {
  for (const auto& [mark, value] :
       {std::pair<std::string, std::string>{"@name@", name}, {"@Name@", class_name(name)}}) {
    for (std::size_t at = 0; (at = text.find(mark, at)) != std::string::npos; at += value.size())
      text.replace(at, mark.size(), value);
  }
  return text;
}

Status write_text(const fs::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (!out) return fail(ExitCode::storage, "cannot write ", path.string());
  return {};
}

}  // namespace

Result<std::vector<std::string>> write_new_plugin(const std::string& root, const std::string& kind,
                                                  const std::string& name) {
  std::vector<std::string> kinds;
  const PluginTemplate* chosen = nullptr;
  for (const PluginTemplate& each : plugin_templates()) {
    kinds.push_back(each.kind);
    if (each.kind == kind) chosen = &each;
  }
  if (chosen == nullptr)
    return fail(ExitCode::usage, "--new can write ", join(kinds, ", "), ", not \"", kind, "\"");
  if (!is_plugin_name(name)) {
    return fail(ExitCode::usage, "\"", name,
                "\" cannot be the name of a plug-in: wants lower-case letters, digits and _, a letter first");
  }
  const fs::path tree = root.empty() ? fs::path(TESSERA_SOURCE_TREE) : fs::path(root);
  if (!fs::is_directory(tree / chosen->folder)) {
    return fail(ExitCode::usage, tree.string(), " is not the source tree of tessera (no ", chosen->folder,
                "); say --source DIR");
  }
  const fs::path source = tree / chosen->folder / (name + ".cpp");
  const fs::path test = tree / chosen->test_folder / (name + "_test.cpp");
  for (const fs::path& path : {source, test}) {
    if (fs::exists(path)) return fail(ExitCode::usage, path.string(), " exists already and is left alone");
  }
  std::error_code ignored;
  fs::create_directories(test.parent_path(), ignored);
  TESSERA_TRY(write_text(source, filled(chosen->source, name)));
  TESSERA_TRY(write_text(test, filled(chosen->test, name)));
  return std::vector<std::string>{source.string(), test.string()};
}

}  // namespace tessera
