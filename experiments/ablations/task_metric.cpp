#include "experiments/ablations/task_metric.h"

#include "experiments/data/metrics.h"
#include "experiments/runs/named_task.h"
#include "tensor/error.h"

namespace graft {

TaskMetrics task_metrics(const Records& records) {
  TaskMetrics all;
  for (const Run& run : records.runs())
    if (run.versions.contains("metric")) all[run.arm.config.at("task")] = run.versions.at("metric");
  return all;
}

bool is_loss(const std::vector<const Run*>& runs) {
  check(!runs.empty(), "report: no runs to tell a metric from");
  for (const Run* run : runs)
    if (run->versions.contains("metric"))
      return !higher_is_better(run->versions.at("metric").get<std::string>());
  const std::string task = runs[0]->arm.config.at("task");
  if (const auto kind = kind_if_known(task)) return *kind == TaskData::Kind::language;
  for (const Run* run : runs)
    for (const auto& [name, value] : run->metrics)
      if ((name == "dev" || name == "test") && value > 0) return false;  // no negated loss is
  fail(
      "report: is task '{}' scored by a loss? The runs of {} do not say, as older ones do not, and "
      "no such folder is here to tell; put it there, or run them again",
      task, runs[0]->experiment);
}

}  // namespace graft
