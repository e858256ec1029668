// Downstream tasks made from WordNet 3.0 and two Bibles, and how a user brings their own.
//
// No random number is drawn anywhere: a row's split follows from the md5 of its split key, and its
// place from the md5 of its text, so every machine makes the same bytes. Keys are chosen so that
// near copies share a split: no key and no row stands in two splits. The pretraining corpus holds
// none of the text, but for kjv_web's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "experiments/data/wordnet.h"

namespace graft {

struct Example {
  std::string a, b;  // language: prompt and continuation; otherwise b is empty but for pairs
  int label = -1;    // index into TaskData::labels; -1: there are none
  float score = 0;   // regression only
  std::uint32_t id =
      0;  // differs within a task and stays the same between runs: addresses random draws
};

struct TaskData {
  enum class Kind { classification, regression, language };

  std::string name;
  Kind kind = Kind::classification;
  bool pair = false;
  bool joined = false;  // language: no end token stands between prompt and continuation
  std::vector<std::string> labels;
  std::vector<Example> train, dev, test;  // each in hash order: any first n rows are a fair sample
  std::string metric;  // "accuracy", "macro_f1", "pearson" or "loss"; see metrics.h
  std::string note;    // what a row is, in one sentence
  // How the task is put to an encoder-decoder (runs/text_form.h), where it is not as usual: its
  // name, what a and b are called, and a word for each label.
  std::string prefix;
  std::vector<std::string> fields, words;
  std::vector<std::string> columns;  // what files of its rows call a, and b; empty: a and b
};

// By the hash of their texts: any first rows are a fair sample, however a file was sorted.
void sort_by_hash(std::vector<Example>& rows);

// The names that build_task() knows, in the order of the tables:
//   supersense         definition -> lexicographer file (noun.food, verb.motion, ...), 38 classes
//   supersense_bal     the same with at most 600 training rows per class
//   pos                definition -> noun, verb, adj, adv, balanced
//   topic              definition -> topic domain (law, music, ...), 20 classes, few rows
//   hyper2             is the first word a kind of the second? (word : definition) twice
//   hyper3             entails, reverse or sibling, the same way: a stand-in for natural language
//   inference acceptability_wn   an example sentence intact or with its word order or a function
//   word spoilt antsyn             two words: antonym, synonym or unrelated; no test word occurs in
//   training similarity_wn      two noun definitions -> 5 x Wu-Palmer similarity
//   defgen             language: a word -> its definition
//   kjv_web            language: a verse of the King James Bible -> the World English Bible's
//   instructions       language: the other tasks' rows in Alpaca's form; tested on new rows
//   instructions_template   tested on new wordings (instructions.h)
//   instructions_task       tested on a new task
const std::vector<std::string>& task_names();

// Throws Error listing the known names for an unknown one. `packages`: where the Bibles are.
TaskData build_task(const std::string& name, const WordNet& wn,
                    const std::filesystem::path& packages = default_data_dir() / "packages");
TaskData::Kind kind_of_task(const std::string& name);

}  // namespace graft
