// `tessera describe`: what can be set and chosen; with --new, a new plug-in to start from.
#include <cstdio>

#include "launch/catalogs.h"
#include "launch/commands.h"
#include "launch/config/describe.h"
#include "launch/new_plugin.h"

namespace tessera {
namespace {

int write_new(const DescribeOptions& options) {
  const Result<std::vector<std::string>> written =
      write_new_plugin(options.source, options.what, options.name);
  if (!written.ok()) return report(written.error());
  for (const std::string& path : *written) std::printf("wrote %s\n", path.c_str());
  for (const PluginTemplate& each : plugin_templates()) {
    if (each.kind != options.what) continue;
    std::printf(
        "It is a working %s: build target %s (cmake finds new files by itself), then change it as you like.\n"
        "`tessera describe %s %s` shows its settings once it is built; docs/config.md is remade by\n"
        "`tessera describe --markdown > docs/config.md`.\n",
        each.kind.c_str(), each.build.c_str(), each.kind.c_str(), options.name.c_str());
  }
  return 0;
}

}  // namespace

int command_describe(const DescribeOptions& options) {
  if (options.create) return write_new(options);
  const Catalogs catalogs = builtin_catalogs();
  if (options.markdown) {
    std::fputs(config_markdown(catalogs).c_str(), stdout);
    return 0;
  }
  const Result<std::string> text = describe(catalogs, options.what, options.name);
  if (!text.ok()) return report(text.error());
  std::fputs(text->c_str(), stdout);
  return 0;
}

}  // namespace tessera
