// From candidate rows to a task: conflicts, splits by hash, order by hash, caps. Internal to the
// tasks.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/data/tasks.h"

namespace graft::data {

enum class Split { train, dev, test };

// Ends of the test and dev shares of [0, 1).
struct Shares {
  double test = 0.1, dev = 0.2;
};

// By the md5 of "split", a unit separator and the key.
Split split_of(std::string_view key, Shares shares = {});

struct Row {
  std::string a, b;
  int label = -1;
  float score = 0;
  Split split = Split::train;
};

// Most rows to keep, in all and per class; 0: no limit.
struct Caps {
  int train = 0, held = 0;  // held: dev and test, each
  int train_per_class = 0, held_per_class = 0;
};

// A text (a, b) that stands there with two labels or in two splits goes, a repeated row stays once,
// the rest is put into hash order and cut to `caps`. Fills train, dev and test of `task`.
void finish(TaskData& task, std::vector<Row> rows, Caps caps);

// Lower-case words joined by spaces, at most `most` of them (0: all).
std::string normalised(std::string_view text, int most = 0);

// Definitions made after one template ("a native or inhabitant of ...") share their first words: a
// definition goes into a split by so many of them.
inline constexpr int kTemplateWords = 6;

// "dog : a member of the genus Canis ..."
std::string described(const Synset& s);

// Number from a hash of `text` for choices: the same text and purpose always choose the same.
std::uint32_t choose(std::string_view purpose, std::string_view text);

// Synsets above `index` by hypernym pointers ("@", and "@i" where `instances`), nearest first, each
// once.
struct Above {
  int synset, distance;
};
std::vector<Above> ancestors(const WordNet& wn, int index, bool instances);

TaskData make_supersense(const WordNet& wn, bool balanced);
TaskData make_pos(const WordNet& wn);
TaskData make_topic(const WordNet& wn);
TaskData make_acceptability(const WordNet& wn);
TaskData make_hyper2(const WordNet& wn);
TaskData make_hyper3(const WordNet& wn);
TaskData make_antsyn(const WordNet& wn);
TaskData make_similarity(const WordNet& wn);
TaskData make_defgen(const WordNet& wn);
TaskData make_kjv_web(const std::filesystem::path& packages);

}  // namespace graft::data
