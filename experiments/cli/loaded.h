// An adapter as `graft train` saves it, or a model with a head, ready to be run.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "experiments/harness/progress.h"
#include "experiments/runs/computing.h"
#include "experiments/runs/finetune.h"
#include "peft/files.h"
#include "peft/methods.h"

namespace graft::cli {

struct Loaded {
  std::unique_ptr<Model> model;
  EncodedTask task;
  RunSpec run;  // its head and pool
  std::unique_ptr<Adaptation> adaptation;
};

struct TaskOf {
  EncodedTask task;
  RunSpec run;
};

// What an adapter's configuration says beside its spec. `named`: the base and the task as the user
// gave them.
nlohmann::json about_adapter(const std::string& base, const std::string& named, const EncodedTask&,
                             const RunSpec&, int max_tokens, std::uint64_t base_hash);
// Throws where that is not all there. Where its task's rows lie may be missing.
AdapterFile read_whole_config(const std::string& folder);
// Throws where one of the keys that tell how a task was put has a value of another kind.
void check_told(const std::string& file, const nlohmann::json& more);
// Throws where the base's weights are others than the adapter was trained on.
void check_base(const AdapterFile&, const std::string& folder, std::uint64_t hash,
                const std::filesystem::path& base);

// A base as records name it: a folder by its whole path, since they are read from other working
// folders, too.
std::string whole_base_name(const std::string& name_or_folder);

// The rows as that adapter's base and head take them; only_test as EncodeSpec's.
TaskOf encoded(const AdapterFile&, const TaskData&, const Model&, const std::filesystem::path& base,
               bool only_test);

// The task that an adapter was trained for, or other rows with its labels. Throws for rows that the
// adapter is not for.
TaskOf task_of(const AdapterFile&, const std::string& other_task, const Model&,
               const std::filesystem::path& base);

// The same as the configuration alone tells it, for whoever has other rows, or needs none. Of an
// earlier version's adapter the files are read, for what its configuration does not say.
TaskData task_without_rows(const AdapterFile&);
TaskOf task_alone(const AdapterFile&, const Model&, const std::filesystem::path& base);

// The token that ends a text in training; -1 where there is none.
int end_token(const Arch&, const Tokenizer&);
// How an adapter that writes text was asked in training, where other programs would not ask so by
// themselves; "" where they would.
std::string how_to_ask(const AdapterFile&, const Arch&, const Tokenizer&);

// The lines of a file of texts, and the number of each. Throws, naming file and line, where it
// cannot be read or a line is not UTF-8. `command`: for messages.
std::vector<std::pair<std::string, int>> read_text_lines(const std::string& command,
                                                         const std::string& file);
// Throws where a file could not be written, before there is anything to write.
void check_writable(const std::string& file);

// The base and the adapter as they were saved, on the device, with that task. Throws where the base
// is another by now.
using TaskFor =
    std::function<TaskOf(const AdapterFile&, const Model&, const std::filesystem::path&)>;
Loaded load_adapted(const std::string& folder, const Methods&, Device, const TaskFor&);

// A model folder by itself, with a task's head for whole texts, which must tell its labels; or for
// a language task. `of` is told the model and gives the task; only_test as EncodeSpec's.
Loaded load_model_alone(const std::string& name, Device, int max_tokens, bool only_test,
                        const std::function<TaskData(const Model&)>& of);

// `work` is given what tells how many of so many rows are done.
template <class Work>
auto with_progress(std::size_t rows, const Work& work) {
  RowProgress progress(stderr, rows);
  return work([&](std::size_t done) { progress.at(done); });
}

}  // namespace graft::cli
