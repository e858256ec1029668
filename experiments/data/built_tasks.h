// Tasks of build_task() are kept in a file each, so that later programs start with them at once.
#pragma once

#include <filesystem>
#include <string>

#include "experiments/data/tasks.h"

namespace graft {

// To be raised with every change of what build_task() makes: older files are then made anew. A test
// compares the tasks with their hashes of this version.
inline constexpr int kTasksVersion = 1;

// build_task(name, WordNet::load(wordnet), packages), or what an earlier call made of the same
// files (their sizes and times) and left in `folder`. A kept file that is damaged is made anew, and
// where none can be written nothing is kept. Throws as build_task() does.
TaskData built_task(const std::string& name, const std::filesystem::path& wordnet,
                    const std::filesystem::path& packages,
                    const std::filesystem::path& folder = default_data_dir() / "tasks");

// Of everything in it.
std::uint64_t hash_of(const TaskData&);

}  // namespace graft
