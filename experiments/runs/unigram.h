// The floor of a language task: a model of its continuations that reads no context.
#pragma once

#include "experiments/runs/finetune.h"

namespace graft {

// How often each token stands in the training continuations (their ends included), interpolated
// with the uniform distribution over `vocab` as in Witten and Bell's method C, so that a token that
// training lacks has a finite loss: p = (count + kinds / vocab) / (tokens + kinds). The same
// examples and the same tokens as a model is scored on. Throws for a task that is no language task.
Score unigram_score(const EncodedTask&, const std::vector<EncodedExample>&, int vocab);

}  // namespace graft
