#include "experiments/ablations/view.h"

#include <algorithm>
#include <set>

#include "experiments/runs/named_task.h"

namespace graft {
namespace {

using nlohmann::json;

std::string without_rate(json config) {
  config.erase("lr");
  return canonical(config);
}

}  // namespace

json tuning_config(json config) {
  config.erase("measure");
  config["rows"]["test"] = 1;
  return config;
}

View::View(const Experiment& experiment, const Records& records, RunKind kind, const Setup& setup)
    : experiment_(experiment), records_(records), kind_(kind), setup_(setup) {
  for (const std::string& task : setup.tasks) arms_[task] = experiment.arms(setup, task);
  for (const Run& run : records.runs()) {
    if (run.experiment != experiment.name || run.kind != kind) continue;
    runs_by_config_[without_rate(run.arm.config)][run.arm.seed] = &run;
  }
}

std::map<std::uint64_t, const Run*> View::runs(const std::string& task,
                                               const std::string& label) const {
  const auto arms = arms_.find(task);
  if (arms == arms_.end()) return {};
  for (const PlannedArm& arm : arms->second) {
    if (arm.label != label) continue;
    const auto at = runs_by_config_.find(without_rate(arm.config));
    return at == runs_by_config_.end() ? std::map<std::uint64_t, const Run*>{} : at->second;
  }
  return {};
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
    if (run->metrics.contains(name)) values.push_back(run->metrics.at(name));
  if (values.empty()) return std::nullopt;
  return mean(values);
}

std::optional<Measure> View::points(const std::string& task, const std::string& arm) const {
  const std::optional<Effect> e = effect({{task, arm, is_language_task(task) ? 1. : 100.}}, 2000);
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

std::vector<Tuning> View::tunings() const {
  std::map<std::string, std::map<double, std::vector<const Run*>>> trials;
  for (const Run& run : records_.runs())
    if (run.experiment == experiment_.name + "/tuning" && run.kind == kind_)
      trials[without_rate(run.arm.config)][run.arm.config.at("lr")].push_back(&run);
  std::vector<Tuning> all;
  for (const std::string& task : setup_.tasks) {
    const double unit = is_language_task(task) ? 1 : 100;  // minus the loss in nats; points
    for (const PlannedArm& arm : arms_.at(task)) {
      const auto at = trials.find(without_rate(tuning_config(arm.config)));
      if (at == trials.end()) continue;
      Tuning t{fmt::format("{}, {}", arm.shown, task), {}, 0};
      for (const auto& [rate, runs] : at->second) {
        std::vector<double> dev;
        for (const Run* run : runs) dev.push_back(unit * run->metrics.at("dev"));
        t.seeds = static_cast<int>(dev.size());
        t.trials.push_back({rate, mean(dev), dev.size() > 1 ? sd(dev) : 0,
                            static_cast<int>(runs[0]->metrics.at("best epoch"))});
      }
      trials.erase(at);
      all.push_back(std::move(t));
    }
  }
  return all;
}

std::optional<double> View::rate(const std::string& task, const std::string& arm) const {
  for (const auto& [seed, run] : runs(task, arm))
    if (run->arm.config.contains("lr")) return run->arm.config.at("lr").get<double>();
  return std::nullopt;
}

Regime regime_of(const View& view, const std::string& task) {
  struct Need {
    std::string less;
    double points;  // below 0: it may be less by so much
  };
  const bool language = is_language_task(task);
  const std::string random = "the method on a random base";
  const std::vector<Need> needs =
      language ? std::vector<Need>{{"unigram", 0}, {"nothing trained", 0}, {random, 0}}
               : std::vector<Need>{{"bag of words", margin_over_words(task)},
                                   {base_floor(view.setup()), 5},
                                   {random, task == "supersense" ? 10. : 0.}};
  const Experiment& experiment = view.experiment();
  const std::string& subject = language ? experiment.language_subject : experiment.subject;
  Regime regime{true, ""};
  const std::string full = "full fine-tuning";
  std::vector<std::pair<std::string, Need>> asked;
  for (const std::string& arm : {full, subject})
    for (const Need& need : needs) asked.push_back({arm, need});
  if (!language) asked.push_back({subject, {full, -4}});
  for (const auto& [arm, need] : asked) {
    // A loss is lower where it is better.
    const auto e =
        view.effect(language ? std::vector<Weighed>{{task, need.less, 1}, {task, arm, -1}}
                             : difference(task, arm, need.less),
                    2000);
    if (!e) return {false, "not all runs that would tell are recorded"};
    const bool enough = (need.points < 0 || e->interval.low > 0) && e->value >= need.points;
    regime.holds &= enough;
    if (enough) continue;
    regime.note +=
        fmt::format("{}{} over {} by {} (needed: {})", regime.note.empty() ? "" : "; ", arm,
                    need.less, with_interval(e->value, e->interval, language ? 3 : 1),
                    need.points == 0 ? "more than 0" : fmt::format("{:g}", need.points));
  }
  return regime;
}

}  // namespace graft
