// N-gram language models of the corpus: what a base's held-out loss stands beside.
#pragma once

#include <cstdint>
#include <vector>

namespace graft {

// Mean loss, in nats per token, of predicting each held-out token from the order - 1 before it:
// interpolated Witten-Bell smoothing (Bell, Cleary & Witten 1990, method C) down to the uniform
// distribution over `vocab`. Order 1 is the unigram model. Throws for order < 1 or no tokens.
double ngram_loss(const std::vector<std::int32_t>& train, const std::vector<std::int32_t>& heldout,
                  int order, int vocab);

}  // namespace graft
