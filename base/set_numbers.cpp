#include "base/set_numbers.h"

#include "base/error.h"

namespace tessera {
namespace {

class Setter final : public FieldVisitor {
 public:
  explicit Setter(const std::map<std::string, double>& values) : values_(values) {}
  void field(const FieldInfo& info, std::int64_t& value) override { set(info, value); }
  void field(const FieldInfo& info, double& value) override { set(info, value); }
  void field(const FieldInfo&, bool&) override {}
  void field(const FieldInfo&, std::string&) override {}
  void field(const FieldInfo&, std::vector<double>&) override {}
  void field(const FieldInfo&, std::vector<std::string>&) override {}
  void group(const FieldInfo&, Settings&) override {}
  void choice(const FieldInfo&, std::string&, const SettingsCatalog&, std::unique_ptr<Settings>&) override {}

  std::size_t found = 0;

 private:
  template <class Number>
  void set(const FieldInfo& info, Number& value) {
    const auto wanted = values_.find(info.name);
    if (wanted == values_.end()) return;
    TESSERA_CHECK(info.bounds.min <= wanted->second && wanted->second <= info.bounds.max, ": ", info.name,
                  " = ", wanted->second, " is out of bounds");
    value = static_cast<Number>(wanted->second);
    ++found;
  }
  const std::map<std::string, double>& values_;
};

}  // namespace

void set_numbers(Settings& settings, const std::map<std::string, double>& values) {
  Setter setter(values);
  settings.fields(setter);
  TESSERA_CHECK_EQ(setter.found, values.size());
}

}  // namespace tessera
