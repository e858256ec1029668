#include "experiments/runs/named_task.h"

#include <algorithm>

#include "experiments/data/built_tasks.h"
#include "experiments/data/task_files.h"
#include "experiments/data/task_folders.h"
#include "tensor/error.h"

namespace graft {

bool is_task_folder(const std::string& path) {
  std::error_code ignored;
  return is_published_folder(path) ||
         std::filesystem::exists(std::filesystem::path(path) / "train.tsv", ignored);
}

TaskData task_named(const std::string& name) {
  namespace fs = std::filesystem;
  if (is_published_folder(name)) return load_published_folder(name);
  if (is_task_folder(name)) return load_tsv_task(name);
  const auto& known = task_names();
  check(std::find(known.begin(), known.end(), name) != known.end(),
        "task '{}': no folder with a train.tsv or task.json, and not one of {}", name,
        fmt::join(known, ", "));
  const fs::path packages = default_data_dir() / "packages", wordnet = find_wordnet(packages);
  check(!wordnet.empty(), "task {}: WordNet is not there; run experiments/data/fetch.sh", name);
  return built_task(name, wordnet, packages);
}

TaskData::Kind kind_of_named_task(const std::string& name) {
  if (is_published_folder(name)) return kind_of_published_folder(name);
  if (is_task_folder(name)) return kind_of_tsv_task(name);
  const auto& known = task_names();
  return std::find(known.begin(), known.end(), name) == known.end() ? TaskData::Kind::classification
                                                                    : kind_of_task(name);
}

}  // namespace graft
