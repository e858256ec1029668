// Rank classification: which of a closed set of answers an encoder-decoder finds likeliest.
#pragma once

#include "nn/model.h"

namespace graft {

// log p(target | source) [sequences][targets]: the sum over a target's tokens, its end token among
// them where it has one. Exact: no answer is decoded and none outside the set competes. The encoder
// reads each source once, and the decoder each beginning that targets share. Edits of the model are
// on. Throws for a model without an encoder, no targets, an empty or repeated one, or a token
// outside the vocabulary.
std::vector<std::vector<double>> log_likelihoods(
    const Model&, const Batch& source, const std::vector<std::vector<std::int32_t>>& targets);

}  // namespace graft
