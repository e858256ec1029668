// How often a model that writes answers writes exactly the right one.
#pragma once

#include "experiments/runs/finetune.h"

namespace graft {

struct ExactMatch {
  int right = 0, of = 0;
  double share() const { return of > 0 ? double(right) / of : 0; }
};

// Greedy answers to the examples' prompts. One is right if it is the continuation token for token,
// its end token too; one that was cut when it was encoded has no end, and cannot be. Throws as
// check_writes() does.
ExactMatch exact_match(const Model&, const EncodedTask&, const std::vector<EncodedExample>&,
                       const RowsDone& = {});

// Throws for a task without continuations, and for an encoder-decoder.
void check_writes(const Model&, const EncodedTask&);

}  // namespace graft
