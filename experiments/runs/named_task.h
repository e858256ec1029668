// A task by name (made from WordNet) or by folder: a user's own tab-separated files, a folder with
// a task.json, or one of GLUE's as published.
#pragma once

#include <string>

#include "experiments/data/tasks.h"

namespace graft {

bool is_task_folder(const std::string& path);

// Throws listing the known names where `name_or_folder` is neither.
TaskData task_named(const std::string& name_or_folder);

// Without reading its rows. A folder that is no longer there counts as classification.
TaskData::Kind kind_of_named_task(const std::string& name_or_folder);
inline bool is_language_task(const std::string& name_or_folder) {
  return kind_of_named_task(name_or_folder) == TaskData::Kind::language;
}

}  // namespace graft
