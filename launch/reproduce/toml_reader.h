// A table of a TOML file read field by field, with every mistake noted and unknown names told. For the files
// that describe an experiment (recipes have their own reader, launch/config/parse.h).
#pragma once
#include <string>
#include <vector>

#include "launch/config/document.h"
#include "launch/reproduce/spec.h"

namespace tessera {

class TomlTable {
 public:
  TomlTable(const Node& node, std::string path, std::string file, std::vector<std::string>& problems)
      : node_(&node), path_(std::move(path)), file_(std::move(file)), problems_(&problems) {}

  std::string text(const std::string& name, const std::string& otherwise);
  std::string needed_text(const std::string& name);
  double number(const std::string& name, double otherwise);
  bool flag(const std::string& name, bool otherwise);
  std::vector<std::string> texts(const std::string& name);
  std::vector<std::int64_t> whole_numbers(const std::string& name);
  /// All of a table as settings: nested tables become dotted names, in the order of the file.
  Said settings(const std::string& name);
  /// Tables of a table in the order of the file, each with its name. Missing: none.
  std::vector<std::pair<std::string, TomlTable>> tables(const std::string& name);
  /// Every child of this table as settings of its own, by name in the order of the file.
  std::vector<std::pair<std::string, Said>> named_settings();
  /// A table whose children are lists of texts.
  std::vector<std::pair<std::string, std::vector<std::string>>> named_texts(const std::string& name);
  bool has(const std::string& name) const { return node_->children.count(name) > 0; }

  /// Notes every name that nobody asked for.
  void refuse_the_rest();
  void problem(const std::string& what);
  const std::string& path() const { return path_; }

 private:
  const Node* find(const std::string& name);
  void wrong(const std::string& name, const Node& node, const char* wanted);

  const Node* node_;
  std::string path_, file_;
  std::vector<std::string>* problems_;
  std::vector<std::string> asked_{};
};

/// A whole document as settings.
Said settings_of(const Node& document);

}  // namespace tessera
