// graft corpus, tokenizer, tasks: the data that experiments stand on.
#include <algorithm>

#include "experiments/cli/cli.h"
#include "experiments/data/baselines.h"
#include "experiments/data/corpus.h"
#include "experiments/data/instructions.h"
#include "experiments/data/task_files.h"
#include "experiments/runs/named_task.h"
#include "nn/text/bpe_trainer.h"

namespace graft::cli {
namespace {

namespace fs = std::filesystem;

// Instructions have line breaks: they go out as JSON, other tasks as tab-separated files.
void write_task(const TaskData& task, const InstructionSets* sets, const fs::path& folder) {
  if (sets)
    write_alpaca(*sets, task.name, folder);
  else
    write_tsv_task(task, folder);
}

void tasks_command(const std::string& out, bool baselines) {
  InstructionSets sets;  // made once for all three tasks
  const auto& of_sets = instruction_task_names();
  fmt::print("{:<22}{:>8}{:>7}{:>7}{:>9}  {:<10}{}\n", "task", "train", "dev", "test", "labels",
             "metric", baselines ? "majority  bag of words" : "");
  for (const std::string& name : task_names()) {
    const bool instructions = std::count(of_sets.begin(), of_sets.end(), name) > 0;
    if (instructions && sets.train.empty()) sets = make_instructions(task_named);
    const TaskData task = instructions ? instruction_task(sets, name) : task_named(name);
    if (!out.empty()) write_task(task, instructions ? &sets : nullptr, fs::path(out) / name);
    std::string scores;
    if (baselines && task.kind == TaskData::Kind::language)
      scores = "-         -";
    else if (baselines)
      scores = fmt::format("{:.3f}     {:.3f}", majority_baseline(task).test,
                           tuned_linear_baseline(task).result.test);
    fmt::print("{:<22}{:>8}{:>7}{:>7}{:>9}  {:<10}{}\n", name, task.train.size(), task.dev.size(),
               task.test.size(), task.labels.size(), task.metric, scores);
    std::fflush(stdout);
  }
}

}  // namespace

void add_data_commands(const Command& app) {
  static fs::path data = default_data_dir();
  static std::string out;
  static bool baselines = false;
  static int vocab = 8192;
  const Command corpus =
      app.add_subcommand("corpus", "Make the pretraining corpus from Debian's packages");
  corpus.add_option("--data", data, "folder with packages/ (see experiments/data/fetch.sh)")
      .capture_default_str();
  corpus.callback([] {
    build_corpus(data / "packages", data, [](std::string_view line) { fmt::print("{}\n", line); });
  });

  const Command tokenizer = app.add_subcommand("tokenizer", "Train the byte-level BPE vocabulary");
  tokenizer.add_option("--data", data).capture_default_str();
  tokenizer.add_option("--vocab", vocab).capture_default_str();
  tokenizer.callback([] {
    const Tokenizer t = train_bpe(std::vector<fs::path>{data / "corpus.train.txt"},
                                  {vocab, {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}, false});
    t.save(data / "tokenizer.json");
    fmt::print("{} tokens in {}\n", t.size(), (data / "tokenizer.json").string());
  });

  const Command tasks =
      app.add_subcommand("tasks", "List the tasks made from WordNet and two Bibles");
  tasks.add_option("--out", out,
                   "also write them as folders of .tsv files, instructions as Alpaca's JSON");
  tasks.add_flag("--baselines", baselines, "also score the majority class and a bag of words");
  tasks.callback([] { tasks_command(out, baselines); });
}

}  // namespace graft::cli
