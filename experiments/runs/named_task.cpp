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

namespace {

namespace fs = std::filesystem;

// The file of a folder that its user may mean to train on.
fs::path file_of_rows(const fs::path& folder) {
  std::error_code ignored;
  for (const char* name : {"train.csv", "train.jsonl", "train.json", "train.txt"})
    if (fs::is_regular_file(folder / name, ignored)) return folder / name;
  fs::path first;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().extension() != ".txt" && !suggested_task_json(entry.path()).empty() &&
        (first.empty() || entry.path() < first))
      first = entry.path();
  return first;
}

void check_known(bool known, const std::string& name) {
  if (known) return;
  std::error_code ignored;
  if (fs::is_regular_file(name, ignored)) {
    const fs::path folder = fs::absolute(name).lexically_normal().parent_path();
    const std::string task = suggested_task_json(name);
    check(!is_task_folder(folder.string()), "task '{}': it is a file; give its folder, '{}'", name,
          folder.string());
    check(!task.empty(), "task '{}': it is a file; give a folder with a train.tsv or task.json",
          name);
    fail("task '{}': it is a file; give its folder, with a task.json there, such as {}", name,
         task);
  }
  if (fs::is_directory(name, ignored)) {
    const fs::path rows = file_of_rows(name);
    check(!rows.empty(), "task '{}': the folder holds no train.tsv and no task.json", name);
    fail("task '{}': it holds {}; write a task.json there, such as {}", name,
         rows.filename().string(), suggested_task_json(rows));
  }
  fail("task '{}': no folder with a train.tsv or task.json, and not one of {}", name,
       fmt::join(task_names(), ", "));
}

}  // namespace

std::string whole_task_name(const std::string& name) {
  if (!is_task_folder(name)) return name;
  return fs::canonical(name).string();
}

TaskData task_named(const std::string& name) {
  if (is_published_folder(name)) return load_published_folder(name);
  if (is_task_folder(name)) return load_tsv_task(name);
  const auto& known = task_names();
  check_known(std::find(known.begin(), known.end(), name) != known.end(), name);
  const fs::path packages = default_data_dir() / "packages", wordnet = find_wordnet(packages);
  check(!wordnet.empty(), "task {}: WordNet is not there; run experiments/data/fetch.sh", name);
  return built_task(name, wordnet, packages);
}

std::optional<TaskData::Kind> kind_if_known(const std::string& name) {
  if (is_published_folder(name)) return kind_of_published_folder(name);
  if (is_task_folder(name)) return kind_of_tsv_task(name);
  const auto& known = task_names();
  if (std::find(known.begin(), known.end(), name) == known.end()) return std::nullopt;
  return kind_of_task(name);
}

TaskData::Kind kind_of_named_task(const std::string& name) {
  const auto kind = kind_if_known(name);
  check_known(kind.has_value(), name);
  return *kind;
}

}  // namespace graft
