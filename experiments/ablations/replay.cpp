#include "experiments/ablations/replay.h"

#include <cmath>

#include "experiments/ablations/report.h"
#include "experiments/ablations/sweep.h"
#include "nn/files/atomic.h"
#include "nn/files/strict_json.h"
#include "nn/optim/diverged.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

Computing where_of(const fs::path& folder) {
  if (is_results_folder(folder)) return open_results(folder).setup.where;
  check(is_sweep_folder(folder), "replay: {} is no results folder: it holds no setup.json",
        folder.string());
  const fs::path spec = folder / "sweep.json";
  return SweepSpec::from(parse_strict("replay: " + spec.string(), read_file(spec))).where;
}

const Run& run_of(const Records& records, const fs::path& folder, const std::string& key) {
  check(!key.empty(), "replay: {} holds {} runs; --key says which, by the \"key\" in its line",
        folder.string(), records.runs().size());
  const Run* found = nullptr;
  for (const Run& run : records.runs()) {
    if (!run.arm.key().starts_with(key)) continue;
    check(!found || found->arm.key() == run.arm.key(),
          "replay: more than one run of {} has a key that begins with '{}'", folder.string(), key);
    found = &run;
  }
  check(found, "replay: no run of {} has a key that begins with '{}'", folder.string(), key);
  return *found;
}

// What the experiment measures beyond the test scores; nothing of a sweep.
Measurement measurement_for(const Methods& methods, const Run& run) {
  const std::string name = run.experiment.substr(0, run.experiment.find("/tuning"));
  for (const Experiment& e : all_experiments())
    if (e.name == name) return e.measurement(methods);
  return {};
}

// Everything that the record has; a later version may measure more.
void check_results(const Run& was, const Run& is) {
  for (const auto& [set, scores] : was.scores) {
    const auto at = is.scores.find(set);
    check(at != is.scores.end() && at->second == scores,
          "replay: the scores '{}' of test examples are others than the record's", set);
  }
  for (const auto& [metric, value] : was.metrics) {
    const auto at = is.metrics.find(metric);
    const double now = at == is.metrics.end() ? std::nan("") : at->second;
    check(now == value || (std::isnan(now) && std::isnan(value)),
          "replay: the metric '{}' is {}, the record says {}", metric, now, value);
  }
}

// A run without scores must run away again.
std::string replay_diverged(Lab& lab, const Measurement& measure, const Run& was) {
  try {
    (void)lab.run(was.experiment, was.kind, was.arm, measure);
  } catch (const Diverged&) {
    return fmt::format("{}, seed {}: diverged, as recorded", label_of(was.arm.config),
                       was.arm.seed);
  }
  fail("replay: the record says that {}, seed {}, diverged, but now it does not",
       label_of(was.arm.config), was.arm.seed);
}

}  // namespace

std::string replay_arm(const Methods& methods, const BaseFolder& base_folder,
                       const fs::path& folder, const std::string& key) {
  const Computing where = where_of(folder);  // throws where it is no results folder
  const Records records(folder);
  const Run& was = run_of(records, folder, key);
  Lab lab(methods, base_folder, where);
  check(was.core == lab.core(),
        "replay: the run was made by kernels for {}, these are for {}: the bits would differ",
        was.core, lab.core());
  const Measurement measure = measurement_for(methods, was);
  if (diverged(was)) return replay_diverged(lab, measure, was);
  const Run is = lab.run(was.experiment, was.kind, was.arm, measure);
  const auto same = [](const char* what, const std::string& a, const std::string& b) {
    check(a == b, "replay: {} is {}, the record says {}", what, b, a);
  };
  same("the base's hash", was.versions.value("base", ""), is.versions.value("base", ""));
  same("the weights' hash", was.weights_hash, is.weights_hash);
  check_results(was, is);
  return fmt::format("{}, seed {}, test {:.4f}{}", label_of(was.arm.config), was.arm.seed,
                     was.metrics.at("test"),
                     was.weights_hash.empty() ? "" : ": weights " + was.weights_hash);
}

}  // namespace graft
