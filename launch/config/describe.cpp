#include "launch/config/describe.h"

#include <algorithm>
#include <set>

#include "base/text.h"
#include "launch/config/outline.h"

namespace tessera {
namespace {

constexpr std::size_t line_width = 110;

std::string padded(std::string text, std::size_t width) {
  if (text.size() < width) text.resize(width, ' ');
  return text;
}

/// `first`, then the words of `text` in lines that begin at column `indent`.
std::string wrapped(const std::string& first, const std::string& text, std::size_t indent) {
  std::string lines = padded(first, indent - 1);
  std::size_t column = lines.size();
  for (const std::string& word : split(text, ' ')) {
    if (column + 1 + word.size() > line_width) {
      lines += "\n" + std::string(indent - 1, ' ');
      column = indent - 1;
    }
    lines += " " + word;
    column += 1 + word.size();
  }
  return lines + "\n";
}

std::string setting_line(const OutlineField& field) {
  const std::string bounds = field.bounds.empty() ? "" : " (" + field.bounds + ")";
  return wrapped("  " + padded(field.name, 14) + " = " + field.value, field.help + bounds, 38);
}

std::string table_text(const OutlineTable& table) {
  std::string text = table.path.empty() ? "" : "[" + table.path + "]  " + table.help + "\n";
  for (const OutlineField& field : table.fields) text += setting_line(field);
  return text;
}

std::vector<const SettingsCatalog*> catalogs_of(const Catalogs& all) {
  return {all.families,  all.objectives, all.methods,    all.inner,
          all.schedules, all.sources,    all.tokenizers, all.codecs};
}

/// "optimizer" and "inner optimizer" both mean the kind "inner optimizer".
bool kind_matches(const std::string& kind, const std::string& typed) {
  const std::vector<std::string> words = split(kind, ' ');
  return kind == typed || words.back() == typed || words.back() + "s" == typed;
}

std::string kind_text(const SettingsCatalog& catalog) {
  std::string text = catalog.kind() + ":\n";
  for (const std::string& name : catalog.names()) text += wrapped("  " + name, catalog.help(name), 22);
  return text;
}

Result<std::string> plugin_text(const SettingsCatalog& catalog, const std::string& name) {
  const std::vector<std::string> names = catalog.names();
  if (std::count(names.begin(), names.end(), name) == 0) {
    const std::string near = nearest_name(name, names);
    return fail(ExitCode::usage, "there is no ", catalog.kind(), " named \"", name, "\"",
                near.empty() ? "" : "; did you mean " + near + "?", " (known: ", join(names, ", "), ")");
  }
  std::string text = catalog.kind() + " " + name + ": " + catalog.help(name) + "\n";
  const std::vector<OutlineField> fields = outline_of_plugin(catalog, name);
  for (const OutlineField& field : fields) text += setting_line(field);
  return fields.empty() ? text + "  (nothing to set)\n" : text;
}

std::string everything(const std::vector<OutlineTable>& tables, const Catalogs& catalogs) {
  std::string text = "All settings of a recipe (TOML) with their defaults\n\n";
  for (const OutlineTable& table : tables) text += table_text(table) + "\n";
  text += "What can be chosen (tessera describe KIND NAME shows the settings)\n\n";
  for (const SettingsCatalog* catalog : catalogs_of(catalogs)) {
    text += wrapped("  " + catalog->kind(), join(catalog->names(), ", "), 22);
  }
  return text;
}

std::string setting_text(const OutlineTable& table, const OutlineField& field) {
  std::string text = (table.path.empty() ? "" : table.path + ".") + field.name + ": " + field.help + "\n";
  text += "  default  " + field.value + "\n  type     " + field.type + "\n";
  if (!field.bounds.empty()) text += "  values   " + field.bounds + "\n";
  if (!field.plugin.empty())
    text +=
        "  of       " + field.plugin + " (other choices in [" + table.path + "] bring their own settings)\n";
  if (field.catalog != nullptr) {
    for (const std::string& name : field.catalog->names())
      text += wrapped("    " + name, field.catalog->help(name), 22);
  }
  return text;
}

std::string escaped(std::string text) {
  for (std::size_t i = 0; (i = text.find('|', i)) != std::string::npos; i += 2) text.replace(i, 1, "\\|");
  return text;
}

std::string markdown_rows(const std::vector<OutlineField>& fields) {
  std::string text = "| setting | default | values | meaning |\n|---|---|---|---|\n";
  for (const OutlineField& field : fields) {
    text += "| `" + field.name + "` | `" + escaped(field.value) + "` | " +
            escaped(field.bounds.empty() ? field.type : field.bounds) + " | " + escaped(field.help) + " |\n";
  }
  return text;
}

/// The plug-ins of a choice; what the table `own`s itself is not said again.
std::string markdown_plugins(const OutlineField& choice, const std::vector<OutlineField>& own,
                             std::set<const SettingsCatalog*>& done) {
  if (!done.insert(choice.catalog).second) return "";
  std::string text;
  for (const std::string& name : choice.catalog->names()) {
    text += "\n**" + choice.catalog->kind() + " `" + name + "`**: " + choice.catalog->help(name) + "\n";
    std::vector<OutlineField> fields = outline_of_plugin(*choice.catalog, name);
    std::erase_if(fields, [&](const OutlineField& field) {
      return std::any_of(own.begin(), own.end(),
                         [&](const OutlineField& other) { return other.name == field.name; });
    });
    if (!fields.empty()) text += "\n" + markdown_rows(fields);
  }
  return text;
}

}  // namespace

Result<std::string> describe(const Catalogs& catalogs, const std::string& what, const std::string& name) {
  Recipe recipe(catalogs);
  const std::vector<OutlineTable> tables = outline_of(recipe);
  if (what.empty()) return everything(tables, catalogs);
  std::vector<std::string> known;
  for (const SettingsCatalog* catalog : catalogs_of(catalogs)) {
    known.push_back(split(catalog->kind(), ' ').back());
    // A kind and a table may share their name (schedule): a bare word then shows both.
    if (!kind_matches(catalog->kind(), what)) continue;
    if (!name.empty()) return plugin_text(*catalog, name);
    std::string text = kind_text(*catalog);
    for (const OutlineTable& table : tables) text += table.path == what ? "\n" + table_text(table) : "";
    return text;
  }
  if (!name.empty()) return describe(catalogs, what + "." + name);
  for (const OutlineTable& table : tables) {
    if (table.path == what) return table_text(table);
    known.push_back(table.path);
    for (const OutlineField& field : table.fields) {
      const std::string path = (table.path.empty() ? "" : table.path + ".") + field.name;
      if (path == what) return setting_text(table, field);
      known.push_back(path);
    }
  }
  const std::string near = nearest_name(what, known);
  return fail(ExitCode::usage, "there is no table, setting or kind named \"", what, "\"",
              near.empty() ? "" : "; did you mean " + near + "?", " (tessera describe lists them all)");
}

std::string config_markdown(const Catalogs& catalogs) {
  std::string text =
      "# Settings\n\n"
      "A recipe is a TOML file. Every setting has a default; `--set table.setting=value` on the command line "
      "wins over the file.\n"
      "An unknown name, a wrong type or a value out of bounds stops the run before it starts, with its place "
      "and the nearest name.\n\n"
      "This page is generated: `tessera describe --markdown > docs/config.md`.\n";
  Recipe recipe(catalogs);
  std::set<const SettingsCatalog*> done;
  for (const OutlineTable& table : outline_of(recipe)) {
    text += table.path.empty() ? "\n## Top level\n\n" : "\n## `[" + table.path + "]`: " + table.help + "\n\n";
    std::vector<OutlineField> own;
    std::copy_if(table.fields.begin(), table.fields.end(), std::back_inserter(own),
                 [](const OutlineField& field) { return field.plugin.empty(); });
    text += markdown_rows(own);
    for (const OutlineField& field : own)
      text += field.catalog != nullptr ? markdown_plugins(field, own, done) : "";
  }
  return text;
}

}  // namespace tessera
