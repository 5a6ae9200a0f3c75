#include "monitoring/metrics.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "base/error.h"
#include "base/text.h"

namespace tessera {
namespace {

using Type = MetricInfo::Type;
constexpr char other[] = "other";

const char* type_name(Type type) {
  switch (type) {
    case Type::counter:
      return "counter";
    case Type::gauge:
      return "gauge";
    case Type::histogram:
      return "histogram";
  }
  return "untyped";
}

bool is_amount(double value) {
  return std::isfinite(value) && value >= 0;
}

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return format_double(value);
}

// The exposition format escapes backslash and newline everywhere and the quote in label values.
std::string escaped(const std::string& text, bool quotes) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') {
      out += "\\n";
      continue;
    }
    if (c == '\\' || (quotes && c == '"')) out += '\\';
    out += c;
  }
  return out;
}

std::string labels(const MetricInfo& info, const MetricSample& sample, const std::string& bound = "") {
  std::vector<std::string> parts;
  if (!info.label.empty()) parts.push_back(info.label + "=\"" + escaped(sample.label_value, true) + "\"");
  if (!bound.empty()) parts.push_back("le=\"" + bound + "\"");
  return parts.empty() ? "" : "{" + join(parts, ",") + "}";
}

void write_histogram(std::ostream& out, const MetricInfo& info, const MetricSample& sample) {
  const auto& bounds = metric::bucket_bounds();
  for (std::size_t i = 0; i < bounds.size(); ++i) {
    out << info.name << "_bucket" << labels(info, sample, number(bounds[i])) << ' ' << sample.cumulative[i]
        << '\n';
  }
  out << info.name << "_bucket" << labels(info, sample, "+Inf") << ' ' << sample.count << '\n';
  out << info.name << "_sum" << labels(info, sample) << ' ' << number(sample.value) << '\n';
  out << info.name << "_count" << labels(info, sample) << ' ' << sample.count << '\n';
}

}  // namespace

Metrics::Metrics() {
  for (const MetricInfo* info : metric::catalogue()) {
    Series fresh;
    if (info->type == Type::histogram) fresh.buckets.assign(metric::bucket_bounds().size() + 1, 0);
    auto& family = series_[info->name];
    if (info->label.empty()) {
      family.emplace("", fresh);
    } else {
      for (const std::string& value : info->label_values) family.emplace(value, fresh);
      if (info != &metric::build_info) family.emplace(other, fresh);
    }
  }
  set(metric::build_info, 1, metric::build_info.label_values.front());
}

Metrics::Series& Metrics::find(const MetricInfo& info, const std::string& label) {
  return const_cast<Series&>(static_cast<const Metrics*>(this)->find(info, label));
}

const Metrics::Series& Metrics::find(const MetricInfo& info, const std::string& label) const {
  const auto family = series_.find(info.name);
  TESSERA_CHECK(family != series_.end(), ": metric ", info.name, " is not in the catalogue");
  TESSERA_CHECK(!info.label.empty() || label.empty(), ": metric ", info.name, " has no label, given ", label);
  auto series = family->second.find(label);
  if (series == family->second.end()) series = family->second.find(other);
  TESSERA_CHECK(series != family->second.end(), ": metric ", info.name, " has no series for ", label);
  return series->second;
}

void Metrics::add(const MetricInfo& info, double by, const std::string& label) {
  TESSERA_CHECK(info.type != Type::histogram, ": add() on the histogram ", info.name);
  if (info.type == Type::counter && !is_amount(by)) return;
  const std::lock_guard lock(mutex_);
  find(info, label).value += by;
}

void Metrics::set(const MetricInfo& info, double value, const std::string& label) {
  TESSERA_CHECK(info.type != Type::histogram, ": set() on the histogram ", info.name);
  if (info.type == Type::counter && !is_amount(value)) return;
  const std::lock_guard lock(mutex_);
  Series& series = find(info, label);
  series.value = info.type == Type::counter ? std::max(series.value, value) : value;
}

void Metrics::observe(const MetricInfo& info, double value, const std::string& label) {
  TESSERA_CHECK(info.type == Type::histogram, ": observe() on ", info.name, ", which is no histogram");
  if (!is_amount(value)) return;
  const auto& bounds = metric::bucket_bounds();
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin();
  const std::lock_guard lock(mutex_);
  Series& series = find(info, label);
  series.value += value;
  ++series.buckets[static_cast<std::size_t>(bucket)];
}

double Metrics::value(const MetricInfo& info, const std::string& label) const {
  const std::lock_guard lock(mutex_);
  return find(info, label).value;
}

std::vector<MetricFamilySample> Metrics::samples() const {
  std::vector<MetricFamilySample> families;
  const std::lock_guard lock(mutex_);
  for (const MetricInfo* info : metric::catalogue()) {
    MetricFamilySample& family = families.emplace_back(MetricFamilySample{info, {}});
    for (const auto& [label_value, series] : series_.at(info->name)) {
      MetricSample& sample = family.series.emplace_back(MetricSample{label_value, series.value, 0, {}});
      for (const std::uint64_t in_bucket : series.buckets) {
        sample.count += in_bucket;
        sample.cumulative.push_back(sample.count);
      }
      if (!sample.cumulative.empty())
        sample.cumulative.pop_back();  // the bucket above all bounds is the count itself
    }
  }
  return families;
}

std::string Metrics::text() const {
  std::ostringstream out;
  for (const auto& [info, series] : samples()) {
    out << "# HELP " << info->name << ' ' << escaped(info->help, false) << '\n';
    out << "# TYPE " << info->name << ' ' << type_name(info->type) << '\n';
    for (const MetricSample& sample : series) {
      if (info->type == Type::histogram) {
        write_histogram(out, *info, sample);
      } else {
        out << info->name << labels(*info, sample) << ' ' << number(sample.value) << '\n';
      }
    }
  }
  return out.str();
}

}  // namespace tessera
