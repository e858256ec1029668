// View: one experiment's records under one set-up, read by the labels of its arms. Rates are not
// part of the question: an arm's runs are found whatever rate was tuned for it.
#pragma once

#include <map>
#include <optional>

#include "experiments/ablations/experiment.h"
#include "experiments/harness/tables.h"

namespace graft {

class View {
 public:
  View(const Experiment&, const Records&, RunKind, const Setup&);

  const Experiment& experiment() const { return experiment_; }
  const Setup& setup() const { return setup_; }
  RunKind kind() const { return kind_; }
  const std::vector<PlannedArm>& arms(const std::string& task) const { return arms_.at(task); }
  bool has_task(const std::string& task) const { return arms_.contains(task); }

  // The runs of one arm by seed, those that diverged among them; none where it did not run, or
  // there is no such arm.
  std::map<std::uint64_t, const Run*> runs(const std::string& task, const std::string& arm) const;
  // The set-up's seeds with which it ran away.
  std::vector<std::uint64_t> diverged(const std::string& task, const std::string& arm) const;
  // Over the seeds for which every piece has scores; none where there is no such seed.
  std::optional<Effect> effect(const std::vector<Weighed>&, int draws = 10000) const;
  // Mean over the runs that did not diverge; none where no run has it.
  std::optional<double> metric(const std::string& task, const std::string& arm,
                               const std::string& name) const;
  // Interval of 100 x mean score over the seeds, or of the mean loss of a language task: for tables
  // and figures.
  std::optional<Measure> points(const std::string& task, const std::string& arm) const;
  // Runs of this set-up's arms; there may be others beside them, of a task that is not done yet.
  std::size_t recorded() const;
  std::vector<std::string> missing() const;  // "label, task" of arms without a run of every seed
  std::vector<Tuning> tunings() const;       // what was tried for the arms of this set-up
  std::optional<double> rate(const std::string& task, const std::string& arm) const;

 private:
  const Experiment& experiment_;
  const Records& records_;
  RunKind kind_;
  Setup setup_;
  std::map<std::string, std::vector<PlannedArm>> arms_;  // by task
  double rate_of(const std::string& config,
                 const std::map<double, std::map<std::uint64_t, const Run*>>& by_rate) const;
  std::map<std::string, std::map<std::uint64_t, const Run*>> runs_by_config_;  // at one rate
};

// The arm that a group is tuned on.
const PlannedArm& leader(const std::vector<PlannedArm>&, const std::string& group);

nlohmann::json without_rate(nlohmann::json config);
// The configuration with which an arm is tuned: one row of test stands in for the test set, which
// tuning must not read, and nothing beyond dev is measured.
nlohmann::json tuning_config(nlohmann::json config);
// The runs of one rate, one for each tuning seed; scores are times `unit`. One that diverged has
// the score -infinity.
Trial trial_of(double rate, const std::vector<const Run*>&, double unit = 1);
// What was tried for a configuration, rate by rate, under the name given; none where nothing was.
// In points, or minus the loss of a language task, in nats per token.
std::optional<Tuning> tuning_of(const Records&, const std::string& experiment, RunKind,
                                const nlohmann::json& config, const std::string& name);

}  // namespace graft
