#include "data/settings_text.h"

#include "base/error.h"
#include "base/text.h"

namespace tessera {
namespace {

/// Writes each field in the order of its declaration; tables nest by "name.".
class Writer final : public FieldVisitor {
 public:
  void field(const FieldInfo& info, bool& value) override { line(info, value ? "true" : "false"); }
  void field(const FieldInfo& info, std::int64_t& value) override { line(info, std::to_string(value)); }
  void field(const FieldInfo& info, double& value) override { line(info, format_double(value)); }
  void field(const FieldInfo& info, std::string& value) override { line(info, quoted(value)); }
  void field(const FieldInfo& info, std::vector<double>& value) override {
    std::vector<std::string> parts;
    for (const double v : value) parts.push_back(format_double(v));
    line(info, join(parts, ","));
  }
  void field(const FieldInfo& info, std::vector<std::string>& value) override {
    std::vector<std::string> parts;
    for (const std::string& v : value) parts.push_back(quoted(v));
    line(info, join(parts, ","));
  }
  void group(const FieldInfo& info, Settings& settings) override { nest(info, settings); }
  void choice(const FieldInfo& info, std::string& name, const SettingsCatalog& catalog,
              std::unique_ptr<Settings>& settings) override {
    line(info, quoted(name));
    if (!settings) settings = catalog.make_settings(name);
    nest(info, *settings);
  }

  std::string text;

 private:
  /// Length first, so that no value can be mistaken for another line.
  static std::string quoted(const std::string& value) { return std::to_string(value.size()) + ":" + value; }
  void line(const FieldInfo& info, const std::string& value) {
    text += prefix_ + info.name + "=" + value + "\n";
  }
  void nest(const FieldInfo& info, Settings& settings) {
    const std::string outer = prefix_;
    prefix_ += info.name + ".";
    settings.fields(*this);
    prefix_ = outer;
  }
  std::string prefix_;
};

}  // namespace

std::string settings_text(Settings& settings) {
  Writer writer;
  settings.fields(writer);
  return writer.text;
}

}  // namespace tessera
