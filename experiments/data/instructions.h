// Instruction data made from the tasks: each row is put into words by one of its task's templates
// (instruction_templates.h), in the form of Alpaca (Taori et al. 2023): instruction, input, output.
//
// Three questions can be asked of a model that learned it; train and dev are the same for all:
//   instructions           test: new rows of known tasks, put as in training
//   instructions_template  test: the same rows, put by two templates of each task that training
//                          lacks
//   instructions_task      test: a task that training lacks, acceptability_wn: no other task shares
//                          its texts or asks a question of its kind (the others are about what
//                          words mean, or ask for a text)
// Training has rows of train splits only, dev of dev splits, test of test splits. Tasks share
// definitions: of rows that share a split key (the first six words of a definition, a word of a
// pair, a whole verse or sentence) in two splits, only test's stay, or else dev's. No random number
// is drawn: rows come in hash order and the hash of a row's text chooses its template.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "experiments/data/tasks.h"

namespace graft {

struct Instruction {
  std::string task;
  int number = 0;  // of the template
  std::string instruction, input, output;
  std::vector<std::string> keys;  // what stands in one split only
};

struct InstructionSets {
  std::vector<Instruction> train, dev;
  std::vector<Instruction> test, new_templates, new_task;
};

// Most rows of one task.
struct InstructionSizes {
  std::size_t train = 2000, dev = 100, test = 200, new_task = 1000;
};

// `task` makes a task by its name; it is asked for those that have templates.
InstructionSets make_instructions(const std::function<TaskData(const std::string&)>& task,
                                  const InstructionSizes& = {});

const std::vector<std::string>& instruction_task_names();  // the three above
// As a language task: Alpaca's prompt, and the output that follows it at once.
TaskData instruction_task(const InstructionSets&, const std::string& name);

// Writes dir/train.json, dev.json, test.json as Alpaca's JSON, and the task.json with which
// load_published_folder reads the same task, example for example.
void write_alpaca(const InstructionSets&, const std::string& name,
                  const std::filesystem::path& dir);

}  // namespace graft
