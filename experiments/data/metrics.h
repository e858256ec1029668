// Scores of predictions. Classes are numbered from 0; every function throws Error for unequal
// lengths or none.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace graft {

// Share of equal entries.
double accuracy(std::span<const int> truth, std::span<const int> predicted);

// Mean over the classes of 2 tp / (2 tp + fp + fn); a class that neither list names counts as
// absent and is left out, as scikit-learn does.
double macro_f1(std::span<const int> truth, std::span<const int> predicted);

// 2 tp / (2 tp + fp + fn) of class 1, as GLUE has it for MRPC and QQP; 0 where neither list names
// it. Throws for a class other than 0 and 1.
double f1(std::span<const int> truth, std::span<const int> predicted);

// Matthews' correlation for any number of classes (Gorodkin 2004); 0 where one list is constant.
double matthews(std::span<const int> truth, std::span<const int> predicted);

// Correlation of values; 0 where one list is constant.
double pearson(std::span<const float> truth, std::span<const float> predicted);

// Correlation of ranks; equal values share their mean rank.
double spearman(std::span<const float> truth, std::span<const float> predicted);

// "accuracy", "f1", "macro_f1" or "matthews"; throws Error listing them for another name.
double class_score(std::string_view metric, std::span<const int> truth,
                   std::span<const int> predicted);

// "pearson" or "spearman".
double value_score(std::string_view metric, std::span<const float> truth,
                   std::span<const float> predicted);

// The other scores of the same predictions, by name; f1 where there are two classes.
using NamedScores = std::vector<std::pair<std::string, double>>;
NamedScores other_class_scores(std::string_view metric, std::size_t classes,
                               std::span<const int> truth, std::span<const int> predicted);
NamedScores other_value_scores(std::string_view metric, std::span<const float> truth,
                               std::span<const float> predicted);

// Throws for a name that does not score so many classes (0: values), before anything is trained.
void check_metric(std::string_view metric, std::size_t classes);

// False for "loss" alone, the mean loss of a language task.
bool higher_is_better(std::string_view metric);

// Within the program every score is better when it is higher, so a loss is kept as its negative.
// This is the one place that turns it round: a measured value into a score, or a score back into
// the value that a reader is shown.
double turned(std::string_view metric, double value);

}  // namespace graft
