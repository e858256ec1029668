// What a model says of rows whose labels nobody knows.
#pragma once

#include "experiments/runs/finetune.h"

namespace graft {

struct Predicted {
  int label = -1;                     // into EncodedTask::labels; -1: the task has values
  float value = 0;                    // of a regression
  std::vector<double> probabilities;  // of each label; empty in a regression
};

// One for each row, in order. A probability is the softmax of the head's scores or, text to text,
// of the answers' log-likelihoods: its share among the answers that there are. Throws for a
// language task, and where a score is not finite.
std::vector<Predicted> predict(Model&, const EncodedTask&, const std::vector<EncodedExample>&,
                               const RowsDone& = {});

}  // namespace graft
