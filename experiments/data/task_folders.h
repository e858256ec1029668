// A task from a folder of files as their publishers or owners have them: one that says in task.json
// what is in it, or a GLUE task as published.
//
// task.json, an object:
//   "format"  csv, tsv, jsonl, json (an array), e2e ("slots||text" on each line), alpaca (a JSON
//             array with instruction, input, output), text (each line is a text)
//   "train", "dev", "test"  file names. Without dev, a tenth of train's rows becomes dev; without
//             test, another tenth test: by the hash of their texts, so equal texts stay together
//   "kind"    classification (the standard), regression or language; e2e, alpaca and text are
//             language
//   "a", "b", "label"       names of columns; b is for pairs; regression has "score" in place of
//             label, language "prompt" and "continuation"
//   "joined"  true, of language in csv, tsv, jsonl or json: a continuation follows its prompt at
//             once. Else the model's end token stands between them, in training and wherever graft
//             puts prompts; elsewhere it must be written behind a prompt. alpaca is joined
//   "labels"  in the order that classes are numbered in; without it, alphabetical
//   "words"   what those labels are called in a text: an encoder-decoder's answers, a cloze head
//   "prefix"  what an encoder-decoder is told that the task is called; else the folder's name
//   "metric"  accuracy, f1 (of the second of two labels), macro_f1, matthews; pearson, spearman
//   "rows"    {"train": 8551, "dev": 1043}: how many the files must have
// Only what a format needs may be given; an unknown key is an Error. Of JSON's objects the columns
// are read that are named here; alpaca's input may be missing or null.
#pragma once

#include <filesystem>

#include "experiments/data/tasks.h"

namespace graft {

// Has a task.json, or a train.tsv with one of GLUE's headers.
bool is_published_folder(const std::filesystem::path& folder);

// Ids count rows through train, dev and test; rows are in hash order (any first n of them are a
// fair sample). Throws Error naming file, line and what is needed for anything that does not fit:
// see row_files.h; an empty text, an unknown label, a score that is no number, a label that no row
// has, another number of rows than the description or GLUE says.
TaskData load_published_folder(const std::filesystem::path& folder);
TaskData::Kind kind_of_published_folder(const std::filesystem::path& folder);

// Rows without labels, in their file's order, to predict. `columns` names the text, or a pair's
// two. The name's end says what the file is: .csv, .tsv, .jsonl, .json; .txt has a text on each
// line, no pairs. Other columns may stand there, too. Throws as load_published_folder does, and for
// other names.
std::vector<Example> read_unlabelled(const std::filesystem::path& file,
                                     const std::vector<std::string>& columns);

// A task.json that may fit a file of rows, by its name and the columns that its first line names:
// something for its user to begin with. "" for a file that is none.
std::string suggested_task_json(const std::filesystem::path& file);

// The prompt of Taori et al. 2023 (Stanford Alpaca, its README), which the response follows.
std::string alpaca_prompt(const std::string& instruction, const std::string& input);

}  // namespace graft
