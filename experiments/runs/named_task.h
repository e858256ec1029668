// A task by name (made from WordNet) or by folder: a user's own tab-separated files, a folder with
// a task.json, or one of GLUE's as published.
#pragma once

#include <optional>
#include <string>

#include "experiments/data/tasks.h"

namespace graft {

bool is_task_folder(const std::string& path);

// A task as records name it: a folder by its whole path, since they are read from other working
// folders, too.
std::string whole_task_name(const std::string& name_or_folder);

// Throws listing the known names where `name_or_folder` is neither.
TaskData task_named(const std::string& name_or_folder);

// Without reading its rows. None where there is neither such a task nor such a folder (any more).
std::optional<TaskData::Kind> kind_if_known(const std::string& name_or_folder);
// The same; throws where there is none.
TaskData::Kind kind_of_named_task(const std::string& name_or_folder);
inline bool is_language_task(const std::string& name_or_folder) {
  return kind_of_named_task(name_or_folder) == TaskData::Kind::language;
}

}  // namespace graft
