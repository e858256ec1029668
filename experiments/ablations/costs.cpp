#include "experiments/ablations/costs.h"

#include <algorithm>

#include "experiments/ablations/lab.h"
#include "experiments/harness/progress.h"

namespace graft {
namespace {

using nlohmann::json;

// Examples passed, a training example counting three times.
double work_of(const json& config) {
  const json rows = config.value("rows", json::object());
  const auto of = [&](const char* split) { return std::max(100.0, rows.value(split, 0.0)); };
  return 3 * of("train") * (trains(config) ? config.value("epochs", 3) : 1) + of("dev") +
         of("test");
}

std::string exact_name(json config) {
  config.erase("lr");
  if (config.contains("rows")) config["rows"].erase("test");
  return canonical(config);
}

std::string alike_name(const json& config) {
  const std::string method = config.at("method");
  return fmt::format("{} {}", method.substr(0, method.find(':')),
                     config.at("task").get<std::string>());
}

}  // namespace

Costs::Sums Costs::sums_of(const Records& records) {
  Sums sums;
  for (const Run& run : records.runs())
    for (Sum* sum :
         {&sums.exact[exact_name(run.arm.config)], &sums.alike[alike_name(run.arm.config)]}) {
      sum->seconds += run.seconds;
      sum->work += work_of(run.arm.config);
      ++sum->runs;
    }
  return sums;
}

Costs::Costs(const Records& here, const Records& elsewhere)
    : here_(sums_of(here)), elsewhere_(sums_of(elsewhere)) {
  double took = 0, there = 0;
  for (const auto& [name, sum] : here_.alike)
    if (const auto at = elsewhere_.alike.find(name); at != elsewhere_.alike.end())
      took += sum.seconds, there += at->second.seconds / at->second.work * sum.work;
  if (there > 0) pace_ = took / there;
}

std::optional<double> Costs::seconds(const json& config) const {
  const std::string exact = exact_name(config), alike = alike_name(config);
  const std::pair<const Sums*, double> places[] = {{&here_, 1}, {&elsewhere_, pace_}};
  for (const auto& [sums, pace] : places)
    if (const auto at = sums->exact.find(exact); at != sums->exact.end())
      return pace * at->second.seconds / at->second.runs;
  for (const auto& [sums, pace] : places)
    if (const auto at = sums->alike.find(alike); at != sums->alike.end())
      return pace * at->second.seconds / at->second.work * work_of(config);
  return std::nullopt;
}

// Forty tokens of 12 x 192 forward, 10 MFLOP each, at some 80 GFLOP/s.
double Costs::rough(const json& config) {
  return 0.005 * work_of(config) * (trains(config) ? 1 : 0.3);
}

void Prediction::add(const Costs& costs, const json& config, int more_runs) {
  const auto each = costs.seconds(config);
  seconds += more_runs * each.value_or(Costs::rough(config));
  runs += more_runs;
  unknown += each ? 0 : more_runs;
}

void print_prediction(const std::string& name, const Prediction& p, int jobs) {
  if (p.runs == 0) {
    fmt::print("{}: every run is recorded already\n", name);
  } else {
    const std::string all = jobs > 1 ? fmt::format(" and all {} jobs run", jobs) : "";
    fmt::print("{}: {} runs to do, about {} on this machine when it is free{} ({})\n", name, p.runs,
               duration(p.seconds / jobs), all,
               p.unknown == 0 ? "from recorded runs"
               : p.unknown == p.runs
                   ? "a rough guess: no such run is recorded yet"
                   : fmt::format("from recorded runs, {} of them by guess", p.unknown));
  }
  std::fflush(stdout);
}

}  // namespace graft
