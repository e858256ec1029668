#include "experiments/ablations/view.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace graft {
namespace {

using nlohmann::json;

std::string name_of(const json& config) { return canonical(without_rate(config)); }

}  // namespace

json without_rate(json config) {
  config.erase("lr");
  return config;
}

json tuning_config(json config) {
  config.erase("measure");
  config["rows"]["test"] = 1;
  return config;
}

View::View(const Experiment& experiment, const Records& records, RunKind kind, const Setup& setup)
    : experiment_(experiment), records_(records), kind_(kind), setup_(setup) {
  setup_.metrics = task_metrics(records);
  for (const std::string& task : setup.tasks) arms_[task] = experiment.arms(setup_, task);
  std::map<std::string, std::map<double, std::map<std::uint64_t, const Run*>>> found;  // by rate
  for (const Run& run : records.runs())
    if (run.experiment == experiment.name && run.kind == kind)
      found[name_of(run.arm.config)][run.arm.config.value("lr", 0.)][run.arm.seed] = &run;
  for (const auto& [config, by_rate] : found)
    runs_by_config_[config] =
        by_rate.at(by_rate.size() == 1 ? by_rate.begin()->first : rate_of(config, by_rate));
}

// Of an arm that ran at several rates, since its search grew: the one that was chosen in the end,
// or else the one with the most runs.
double View::rate_of(const std::string& config,
                     const std::map<double, std::map<std::uint64_t, const Run*>>& by_rate) const {
  for (const auto& [task, arms] : arms_)
    for (const PlannedArm& arm : arms) {
      if (arm.group.empty() || name_of(arm.config) != config) continue;
      const auto t =
          tuning_of(records_, experiment_.name, kind_, leader(arms, arm.group).config, "");
      if (t && by_rate.contains(chosen(*t).rate)) return chosen(*t).rate;
    }
  return std::max_element(
             by_rate.begin(), by_rate.end(),
             [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); })
      ->first;
}

const PlannedArm& leader(const std::vector<PlannedArm>& arms, const std::string& group) {
  const PlannedArm* found = nullptr;
  for (const PlannedArm& arm : arms)
    if (arm.group == group && (!found || arm.leads)) found = &arm;
  return *found;
}

std::map<std::uint64_t, const Run*> View::runs(const std::string& task,
                                               const std::string& label) const {
  const auto arms = arms_.find(task);
  if (arms == arms_.end()) return {};
  for (const PlannedArm& arm : arms->second) {
    if (arm.label != label) continue;
    const auto at = runs_by_config_.find(name_of(arm.config));
    return at == runs_by_config_.end() ? std::map<std::uint64_t, const Run*>{} : at->second;
  }
  return {};
}

std::vector<std::uint64_t> View::diverged(const std::string& task, const std::string& arm) const {
  std::vector<std::uint64_t> seeds;
  for (const auto& [seed, run] : runs(task, arm))
    if (graft::diverged(*run) && std::ranges::count(setup_.scale.seeds, seed) > 0)
      seeds.push_back(seed);
  return seeds;
}

std::optional<Effect> View::effect(const std::vector<Weighed>& pieces, int draws) const {
  std::vector<std::map<std::uint64_t, const Run*>> found;
  for (const Weighed& p : pieces) {
    found.push_back(runs(p.task, p.arm));
    std::erase_if(found.back(), [&](const auto& r) { return !r.second->scores.contains(p.set); });
  }
  Contrast contrast;
  for (const Weighed& p : pieces) contrast.terms.push_back({{}, p.weight, p.task});
  for (const std::uint64_t seed : setup_.scale.seeds) {
    if (!std::all_of(found.begin(), found.end(), [&](const auto& r) { return r.contains(seed); }))
      continue;
    for (std::size_t i = 0; i < pieces.size(); ++i)
      contrast.terms[i].scores.push_back(found[i].at(seed)->scores.at(pieces[i].set));
  }
  if (pieces.empty() || contrast.terms[0].scores.empty()) return std::nullopt;
  return bootstrap(contrast, {.draws = draws});
}

std::optional<double> View::metric(const std::string& task, const std::string& arm,
                                   const std::string& name) const {
  std::vector<double> values;
  for (const auto& [seed, run] : runs(task, arm))
    if (!graft::diverged(*run) && run->metrics.contains(name))
      values.push_back(run->metrics.at(name));
  if (values.empty()) return std::nullopt;
  return mean(values);
}

std::optional<Measure> View::points(const std::string& task, const std::string& arm) const {
  const std::optional<Effect> e = effect({{task, arm, setup_.is_language(task) ? 1. : 100.}}, 2000);
  if (!e) return std::nullopt;
  return measure(*e);
}

std::size_t View::recorded() const {
  std::set<const Run*> found;
  for (const auto& [task, arms] : arms_)
    for (const PlannedArm& arm : arms)
      for (const auto& [seed, run] : runs(task, arm.label)) found.insert(run);
  return found.size();
}

std::vector<std::string> View::missing() const {
  std::vector<std::string> all;
  for (const auto& [task, arms] : arms_)
    for (const PlannedArm& arm : arms) {
      if (setup_.few && !arm.few) continue;
      const auto have = runs(task, arm.label);
      for (const std::uint64_t seed : setup_.scale.seeds)
        if (!have.contains(seed))
          all.push_back(fmt::format("{}, {}, seed {}", arm.label, task, seed));
    }
  return all;
}

Trial trial_of(double rate, const std::vector<const Run*>& runs, double unit) {
  std::vector<double> dev;
  for (const Run* run : runs) dev.push_back(unit * run->metrics.at("dev"));
  const double score = mean(dev);
  return {rate, std::isnan(score) ? -std::numeric_limits<double>::infinity() : score,
          dev.size() > 1 ? sd(dev) : 0, static_cast<int>(runs.back()->metrics.at("best epoch"))};
}

std::optional<Tuning> tuning_of(const Records& records, const std::string& experiment, RunKind kind,
                                const json& config, const std::string& name) {
  const std::string tuned = name_of(tuning_config(config));
  std::map<double, std::vector<const Run*>> trials;
  for (const Run& run : records.runs())
    if (run.experiment == experiment + "/tuning" && run.kind == kind &&
        run.arm.config.at("method") == config.at("method") && name_of(run.arm.config) == tuned)
      trials[run.arm.config.at("lr")].push_back(&run);
  if (trials.empty()) return std::nullopt;
  std::vector<const Run*> tried;
  for (const auto& [rate, runs] : trials) tried.insert(tried.end(), runs.begin(), runs.end());
  const bool loss = is_loss(tried);
  const double unit = loss ? 1 : 100;
  Tuning t{name, config.at("task"), {}, 0, loss};
  for (const auto& [rate, runs] : trials) {
    t.seeds = static_cast<int>(runs.size());
    t.trials.push_back(trial_of(rate, runs, unit));
  }
  return t;
}

std::vector<Tuning> View::tunings() const {
  std::vector<Tuning> all;
  std::set<std::string> seen;
  for (const std::string& task : setup_.tasks)
    for (const PlannedArm& arm : arms_.at(task)) {
      if (!seen.insert(name_of(tuning_config(arm.config))).second) continue;
      const std::string name = fmt::format("{}, {}", arm.shown, task);
      if (auto t = tuning_of(records_, experiment_.name, kind_, arm.config, name))
        all.push_back(std::move(*t));
    }
  return all;
}

std::optional<double> View::rate(const std::string& task, const std::string& arm) const {
  for (const auto& [seed, run] : runs(task, arm))
    if (run->arm.config.contains("lr")) return run->arm.config.at("lr").get<double>();
  return std::nullopt;
}

}  // namespace graft
