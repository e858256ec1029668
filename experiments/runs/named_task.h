// A task by name (made from WordNet) or by folder (a user's own tab-separated files).
#pragma once

#include <string>

#include "experiments/data/tasks.h"

namespace graft {

// Throws listing the known names where `name_or_folder` is neither.
TaskData task_named(const std::string& name_or_folder);

}  // namespace graft
