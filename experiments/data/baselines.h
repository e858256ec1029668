// What a model must beat: the majority class and linear models on TF-IDF weights of words or
// characters. They throw for language tasks, which have no labels.
#pragma once

#include <utility>
#include <vector>

#include "experiments/data/tasks.h"

namespace graft {

struct BaselineResult {
  std::vector<int> dev_labels, test_labels;    // classification: predictions, in the rows' order
  std::vector<float> dev_values, test_values;  // regression
  double dev = 0, test = 0;                    // TaskData::metric
  int features = 0;                            // columns of the linear model; 0: none
};

// The commonest training label (ties: the first), or the mean score.
BaselineResult majority_baseline(const TaskData& task);

enum class Terms {
  words,      // runs of two or more letters and digits
  words_1_3,  // the same and their runs of two and three
  chars_2_4,  // every 2 to 4 running bytes of the text
};

enum class Side { both, only_a, only_b };  // one side of a pair alone must not tell the label

struct LinearOptions {
  Terms terms = Terms::words;
  Side side = Side::both;
  // Classification minimises c x (sum of log losses) + |w|^2 / 2; regression the squared errors
  // + |w|^2 / c. Biases are free.
  double c = 2;
  int most_iterations = 200;
};

// TF-IDF (smooth idf, unit rows) learnt from train, then multinomial logistic regression or ridge
// regression by L-BFGS. A pair's features are p, q, p * q, |p - q| and the sum of p * q, where p
// and q are the rows of its texts. Deterministic; uses no threads.
BaselineResult linear_baseline(const TaskData& task, const LinearOptions& options = {});

// The same with the c among ..., 0.2, 0.63, 2, 6.3, 20, ... that is best on dev (the least of equal
// ones): five around `options.c`, and further ones while the best lies at an end, between 1e-3 and
// 1e4.
struct TunedBaseline {
  BaselineResult result;
  double c;
  std::vector<std::pair<double, double>> tried;  // c and its dev score, ascending
};
TunedBaseline tuned_linear_baseline(const TaskData& task, const LinearOptions& options = {});

// For pairs: the cosine of the two texts' TF-IDF rows as the prediction of a score.
BaselineResult cosine_baseline(const TaskData& task, Terms terms = Terms::words);

}  // namespace graft
