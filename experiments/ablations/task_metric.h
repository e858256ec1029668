// Which tasks' metrics are losses, from the records: a folder may lie elsewhere when a page is
// made.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "experiments/harness/record.h"

namespace graft {

// The metric of each task, as its runs have it: none of older records, which do not say.
using TaskMetrics = std::map<std::string, std::string>;
TaskMetrics task_metrics(const Records&);

// Whether the metrics of these runs of one task are losses, which are kept negated: as they say or,
// where they are older, as the task or their own numbers tell. Throws where nothing tells.
bool is_loss(const std::vector<const Run*>&);

}  // namespace graft
